"""An MLflow tracking server, as it is read: pages put together, files downloaded."""

from __future__ import annotations

import math
import os
import posixpath
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

import httpx

PAGE = 1_000
MODELS_PAGE = 100
POINTS_PAGE = 25_000
TIMEOUT = 60.0
RETRIES = 3
_API = "/api/2.0/mlflow"
_STORE = "/api/2.0/mlflow-artifacts/artifacts"


class MlflowError(Exception):
    """The MLflow server cannot be reached, or refuses."""


class Point(NamedTuple):
    """One point of a metric's history."""

    step: int
    time_us: int
    value: float


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file that the server keeps: where it belongs, and how it is asked for."""

    path: str
    size_bytes: int
    url: str
    parameters: Mapping[str, str]


class MlflowServer:
    """Reads from a server; its credentials are those that MLflow's own client takes.

    They are MLFLOW_TRACKING_TOKEN, or MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD.
    """

    def __init__(self, uri: str, environ: Mapping[str, str] = os.environ) -> None:
        if not uri.startswith(("http://", "https://")):
            raise MlflowError(f"{uri} is no address of a server: http:// or https:// is needed")
        headers, user = {}, environ.get("MLFLOW_TRACKING_USERNAME", "")
        if token := environ.get("MLFLOW_TRACKING_TOKEN", ""):
            headers["Authorization"] = f"Bearer {token}"
        password = environ.get("MLFLOW_TRACKING_PASSWORD", "")
        self.uri = uri.rstrip("/")
        self._http = httpx.Client(
            base_url=self.uri,
            headers=headers,
            auth=(user, password) if user and not headers else None,
            timeout=TIMEOUT,
            transport=httpx.HTTPTransport(retries=RETRIES),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._http.close()

    def experiments(self) -> Iterator[dict[str, Any]]:
        """Yield the experiments that are not deleted."""
        yield from self._search("experiments/search", "experiments", max_results=PAGE)

    def runs(self, experiment_id: str) -> Iterator[dict[str, Any]]:
        """Yield an experiment's runs that are not deleted, oldest first."""
        yield from self._search(
            "runs/search",
            "runs",
            experiment_ids=[experiment_id],
            max_results=PAGE,
            order_by=["attributes.start_time ASC"],
        )

    def history(self, run_id: str, key: str) -> Iterator[Point]:
        """Yield all points of a metric."""
        query = {"run_id": run_id, "metric_key": key, "max_results": POINTS_PAGE}
        for page in self._pages("GET", "metrics/get-history", query):
            for point in page.get("metrics", ()):
                value = point.get("value", 0.0)
                number = float(value) if not isinstance(value, str) else _number(value)
                yield Point(int(point.get("step", 0)), int(point["timestamp"]) * 1000, number)

    def models(self) -> Iterator[dict[str, Any]]:
        """Yield the registered models."""
        query = {"max_results": MODELS_PAGE}
        for page in self._pages("GET", "registered-models/search", query):
            yield from page.get("registered_models", ())

    def versions(self, model: str) -> list[dict[str, Any]]:
        """Return a registered model's versions, oldest first."""
        quoted = model.replace("'", "\\'")
        query = {"filter": f"name='{quoted}'", "max_results": PAGE}
        pages = self._pages("GET", "model-versions/search", query)
        found = [version for page in pages for version in page.get("model_versions", ())]
        return sorted(found, key=lambda version: int(version["version"]))

    def run_files(self, run_id: str, folder: str = "") -> Iterator[RemoteFile]:
        """Yield the files of a run."""
        query = {"run_id": run_id, "path": folder}
        for page in self._pages("GET", "artifacts/list", query):
            for entry in page.get("files", ()):
                if entry.get("is_dir"):
                    yield from self.run_files(run_id, entry["path"])
                else:
                    parameters = {"run_uuid": run_id, "path": entry["path"]}
                    yield RemoteFile(entry["path"], _size(entry), "/get-artifact", parameters)

    def version_files(self, model: str, version: str) -> Iterator[RemoteFile]:
        """Yield the files of a model version.

        Raises:
            MlflowError: The server does not serve them; they lie elsewhere.
        """
        query = {"name": model, "version": version}
        uri = str(self._call("GET", "model-versions/get-download-uri", query)["artifact_uri"])
        scheme, _, root = uri.partition(":")
        if scheme == "runs":
            run_id, _, folder = root.lstrip("/").partition("/")
            for file in self.run_files(run_id, folder):
                path = posixpath.relpath(file.path, folder or ".")
                yield replace(file, path=path)
        elif scheme == "mlflow-artifacts":
            yield from self._stored(root.lstrip("/"), "")
        else:
            raise MlflowError(f"its files lie at {uri}, which the server does not serve")

    def download(self, file: RemoteFile, destination: Path) -> int:
        """Write a file; return how many bytes it has."""
        destination.parent.mkdir(parents=True, exist_ok=True)
        size = 0
        try:
            with (
                self._http.stream("GET", file.url, params=file.parameters) as answer,
                destination.open("wb") as target,
            ):
                answer.raise_for_status()
                for piece in answer.iter_bytes():
                    size += target.write(piece)
        except httpx.HTTPError as error:
            raise MlflowError(f"{file.path}: {_why(error)}") from error
        return size

    def _stored(self, root: str, folder: str) -> Iterator[RemoteFile]:
        """Yield the files below a folder of the artifact store that the server is a proxy of."""
        where = posixpath.join(root, folder)
        for entry in self._get(_STORE, {"path": where}).get("files", ()):
            path = posixpath.join(folder, posixpath.basename(entry["path"]))
            if entry.get("is_dir"):
                yield from self._stored(root, path)
            else:
                yield RemoteFile(path, _size(entry), f"{_STORE}/{posixpath.join(root, path)}", {})

    def _search(self, method: str, field: str, **body: Any) -> Iterator[dict[str, Any]]:
        for page in self._pages("POST", method, body):
            yield from page.get(field, ())

    def _pages(self, verb: str, method: str, query: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        token = ""
        while True:
            page = self._call(verb, method, {**query, **({"page_token": token} if token else {})})
            yield page
            token = page.get("next_page_token", "")
            if not token:
                return

    def _call(self, verb: str, method: str, query: Mapping[str, Any]) -> dict[str, Any]:
        if verb == "GET":
            return self._get(f"{_API}/{method}", query)
        return self._ask(self._http.build_request(verb, f"{_API}/{method}", json=dict(query)))

    def _get(self, path: str, query: Mapping[str, Any]) -> dict[str, Any]:
        return self._ask(self._http.build_request("GET", path, params=dict(query)))

    def _ask(self, request: httpx.Request) -> dict[str, Any]:
        try:
            answer = self._http.send(request)
            answer.raise_for_status()
            found: dict[str, Any] = answer.json()
        except (httpx.HTTPError, ValueError) as error:
            raise MlflowError(f"{self.uri}{request.url.path}: {_why(error)}") from error
        return found


def _size(entry: Mapping[str, Any]) -> int:
    return int(entry.get("file_size", 0))


def _number(text: str) -> float:
    """Return a number that JSON has no word for."""
    return {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}.get(text) or float(text)


def _why(error: Exception) -> str:
    if isinstance(error, httpx.HTTPStatusError):
        return f"HTTP {error.response.status_code}"
    return f"{type(error).__name__}: {error}"
