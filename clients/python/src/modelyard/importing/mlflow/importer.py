"""The import: what is missing here is brought over; run again, it goes on or finds nothing to do.

Whatever is imported carries its MLflow id, by which it is found again. Points of metrics are
compared one by one, so that none is kept twice, whenever an import was broken off.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from modelyard._client import Client
from modelyard.errors import ModelyardError, NotFoundError
from modelyard.importing.mlflow import mapping
from modelyard.importing.mlflow.server import MlflowError, MlflowServer, Point, RemoteFile
from modelyard.metadata.v1 import run_pb2, version_pb2

IMPORTED_TAG = "mlflow.imported"
"""The fingerprint of a run that is wholly here."""
ARTIFACT_TAG = "mlflow.artifact"

Report = Callable[[str], None]
_PLURALS = {"run": "runs", "model": "models", "version": "versions", "alias": "aliases"}


@dataclass(slots=True)
class Summary:
    """What an import did: how many of each kind it brought over or found here, and its problems."""

    imported: Counter[str] = field(default_factory=Counter)
    present: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)
    shortened: Counter[str] = field(default_factory=Counter)
    """By their keys, how many tags were too long or too many."""


class Importer:
    """Imports experiments and registered models into one project."""

    def __init__(
        self,
        server: MlflowServer,
        client: Client,
        *,
        report: Report = lambda _: None,
        is_dry_run: bool = False,
    ) -> None:
        self._server = server
        self._client = client
        self._report = report
        self._is_dry_run = is_dry_run
        # Where runs go that registered models came from: version and run are of one model here.
        self._models_of_runs: dict[str, str] = {}
        self.summary = Summary()

    def run(self, *, experiments: Collection[str] = (), models: Collection[str] = ()) -> Summary:
        """Import the named experiments and models, or all of them when none is named."""
        every = not experiments and not models
        registered = [model for model in self._server.models() if every or model["name"] in models]
        versions = {model["name"]: self._server.versions(model["name"]) for model in registered}
        for name in sorted(versions, reverse=True):
            for version in versions[name]:
                if version.get("run_id"):
                    self._models_of_runs[version["run_id"]] = mapping.model_id(name)
        for experiment in self._server.experiments():
            whole = every or experiment["name"] in experiments
            if whole or self._models_of_runs:  # any may hold runs that made versions
                self._experiment(experiment, whole=whole)
        for model in registered:
            self._model(model, versions[model["name"]])
        return self.summary

    def _experiment(self, experiment: Mapping[str, Any], *, whole: bool) -> None:
        name = str(experiment["name"])
        for run in self._server.runs(experiment["experiment_id"]):
            if whole or run["info"]["run_id"] in self._models_of_runs:
                self._guarded("run", run["info"]["run_id"], partial(self._run, run, name))

    def _guarded(self, kind: str, name: str, work: Callable[[], bool]) -> None:
        """Do one thing's import; its failure is noted and harms no other."""
        try:
            is_new = work()
        except (MlflowError, ModelyardError, OSError) as error:
            self.summary.problems.append(f"{kind} {name}: {error}")
            self._report(f"{kind} {name}: {error}")
            return
        (self.summary.imported if is_new else self.summary.present)[_PLURALS[kind]] += 1
        self._report(f"{kind} {name}: {'imported' if is_new else 'is there'}")

    def _run(self, run: Mapping[str, Any], experiment: str) -> bool:
        """Import a run; False if it is wholly here."""
        identity, mark = run["info"]["run_id"], mapping.fingerprint(run)
        name, found = self._find_run(identity, experiment)
        if found is not None and found.tags.get(IMPORTED_TAG) == mark:
            return False
        if self._is_dry_run:
            return True
        tags = mapping.run_tags(run, experiment)
        self.summary.shortened.update(tags.lost)
        if found is None:
            self._client.runs.create(
                name.partition("/")[0],
                run_id=mapping.run_id(identity),
                display_name=run["info"].get("run_name", "")[:200],
                tags=tags.kept,
                group=mapping.group_of(run),
                notes=mapping.notes_of(run),
            )
        before = found or run_pb2.Run()
        self._log(run, name, before)
        files = self._files(identity, name, before.tags.get(ARTIFACT_TAG, ""))
        self._finish(run, name, {**before.tags, **tags.kept, **files}, mark)
        return True

    def _find_run(self, identity: str, experiment: str) -> tuple[str, run_pb2.Run | None]:
        """Return a run's short name and the run, wherever it was imported to."""
        model = self._models_of_runs.get(identity) or mapping.model_id(experiment)
        name = f"{model}/{mapping.run_id(identity)}"
        try:
            return name, self._client.runs.get(name)
        except NotFoundError:
            pass
        wanted = f'id = "{mapping.run_id(identity)}"'
        for found in self._client.runs.search(filter=wanted, show_deleted=True, page_size=1):
            parts = found.name.split("/")
            return f"{parts[3]}/{parts[5]}", found
        return name, None

    def _log(self, run: Mapping[str, Any], name: str, found: run_pb2.Run) -> None:
        """Log parameters, and those points that are not here."""
        identity, data = run["info"]["run_id"], run.get("data", {})
        kept = {metric.key for metric in found.metrics}
        with self._client.runs.writer(name) as writer:
            given = mapping.pairs(data.get("params", ()))
            params = {key: value for key, value in given.items() if key not in found.params}
            if params:
                writer.log(params=params)
                self.summary.imported["parameters"] += len(params)
            for key in sorted({metric["key"] for metric in data.get("metrics", ())}):
                missing = self._missing(identity, name, key, is_new=key not in kept)
                if missing:
                    writer.log_many(
                        {key: [point.value for point in missing]},
                        steps=[point.step for point in missing],
                        times_us=[point.time_us for point in missing],
                    )
                    self.summary.imported["points"] += len(missing)

    def _missing(self, identity: str, name: str, key: str, *, is_new: bool) -> list[Point]:
        """Return the points of a metric that are not here, oldest first."""
        history = list(self._server.history(identity, key))
        if not is_new:
            here = self._client.runs.metric_points(name, key)
            points = zip(here.steps, here.times_us, here.values, strict=True)
            counts = Counter(_comparable(Point(*point)) for point in points)
            history = [point for point in history if not _take(counts, _comparable(point))]
        return sorted(history, key=lambda point: (point.time_us, point.step))

    def _files(self, identity: str, name: str, before: str) -> dict[str, str]:
        """Keep a run's files as an artifact that the run holds; return the tag that names it.

        `before` is the artifact it held; it is kept when its files are those of now.
        """
        files = list(self._server.run_files(identity))
        if before and {(file.path, file.size_bytes) for file in files} == {
            (file.path, file.size_bytes) for file in self._client.artifacts.files(before)
        }:
            return {ARTIFACT_TAG: before}
        artifact = self._artifact(files)
        if not artifact:
            return {}
        run = self._client.runs.get(name)
        self._client.artifacts.hold(artifact, holder=run.name)
        return {ARTIFACT_TAG: artifact}

    def _finish(
        self, run: Mapping[str, Any], name: str, tags: Mapping[str, str], mark: str
    ) -> None:
        """End a run as it ended, and note that it is wholly here."""
        status = run["info"].get("status", "")
        state = mapping.STATES.get(status)
        if state is not None:
            reason = "MLFLOW_FAILED" if state == "failed" else ""
            try:
                self._client.runs.finish(name, state, reason=reason)
            except ModelyardError as error:
                if error.reason != "WRONG_STATE":
                    raise
        self._client.runs.update(
            name, tags={**tags, IMPORTED_TAG: mark}, notes=mapping.notes_of(run)
        )

    def _model(self, model: Mapping[str, Any], versions: Iterable[Mapping[str, Any]]) -> None:
        name = str(model["name"])
        identity = mapping.model_id(name)
        self._guarded("model", name, partial(self._create_model, model, identity))
        here: dict[str, version_pb2.Version] = {}
        try:
            listed = self._client.versions.list(identity, show_deleted=True)
            here = {
                one.labels[mapping.VERSION_LABEL]: one
                for one in listed
                if mapping.VERSION_LABEL in one.labels
            }
        except NotFoundError:
            pass
        for version in versions:
            number = str(version["version"])
            self._guarded(
                "version",
                f"{name}/{number}",
                partial(self._version, version, identity, here),
            )
        for alias in model.get("aliases", ()):
            self._guarded(
                "alias",
                f"{name}@{alias['alias']}",
                partial(self._alias, alias, identity, here),
            )

    def _create_model(self, model: Mapping[str, Any], identity: str) -> bool:
        labels = mapping.fitted(
            {"mlflow.name": model["name"]}, mapping.pairs(model.get("tags", ()))
        )
        self.summary.shortened.update(labels.lost)
        facts = {
            "display_name": model["name"][:200],
            "description": model.get("description", ""),
            "labels": labels.kept,
        }
        try:
            found = self._client.models.get(identity)
        except NotFoundError:
            if not self._is_dry_run:
                self._client.models.create(identity, **facts)
            return True
        if found.labels.get("mlflow.name") == model["name"]:
            return False
        if not self._is_dry_run:  # made by its first run
            self._client.models.update(identity, **facts)
        return True

    def _version(
        self,
        version: Mapping[str, Any],
        model: str,
        here: dict[str, version_pb2.Version],
    ) -> bool:
        number = str(version["version"])
        if number in here:
            return False
        if self._is_dry_run:
            return True
        artifact = self._artifact(self._server.version_files(version["name"], number))
        if not artifact:
            raise MlflowError("it has no files")
        labels = mapping.version_labels(version)
        self.summary.shortened.update(labels.lost)
        run = version.get("run_id", "")
        here[number] = self._client.versions.create(
            model,
            artifact,
            run=self._run_of(run, model),
            description=version.get("description", ""),
            labels=labels.kept,
        )
        return True

    def _run_of(self, identity: str, model: str) -> str | None:
        """Return the run that a version came from, if it is here and of the same model."""
        name = f"{model}/{mapping.run_id(identity)}"
        try:
            return name if identity and self._client.runs.get(name) else None
        except NotFoundError:
            return None

    def _alias(
        self, alias: Mapping[str, Any], model: str, here: Mapping[str, version_pb2.Version]
    ) -> bool:
        identity, version = mapping.alias_id(alias["alias"]), here.get(str(alias["version"]))
        if version is None:
            if self._is_dry_run:
                return True
            raise MlflowError(f"its version {alias['version']} was not imported")
        try:
            if self._client.aliases.get(model, identity).version == version.name:
                return False
        except NotFoundError:
            pass
        if not self._is_dry_run:
            number = int(version.name.rpartition("/")[2])
            self._client.aliases.set(model, identity, version=number, reason="imported from MLflow")
        return True

    def _artifact(self, files: Iterable[RemoteFile]) -> str:
        """Store files as an artifact; return its name, empty when there are none."""
        with tempfile.TemporaryDirectory(prefix="modelyard-import-") as folder:
            root, count = Path(folder), 0
            for file in files:
                destination = root / file.path
                if not destination.resolve().is_relative_to(root.resolve()):
                    raise MlflowError(f"{file.path} leads out of its folder")
                self.summary.imported["bytes"] += self._server.download(file, destination)
                count += 1
            if not count:
                return ""
            self.summary.imported["files"] += count
            return self._client.artifacts.push(root).name


def _comparable(point: Point) -> tuple[int, int, str]:
    return point.step, point.time_us, repr(point.value)


def _take(counts: Counter[tuple[int, int, str]], point: tuple[int, int, str]) -> bool:
    if not counts[point]:
        return False
    counts[point] -= 1
    return True
