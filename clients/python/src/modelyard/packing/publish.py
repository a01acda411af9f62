"""From a model in a training script to a registered version."""

# ruff: noqa: A002  # `license` is what the API calls it

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from modelyard.bundle import Bundle
from modelyard.errors import ModelyardError
from modelyard.model import Model
from modelyard.packing import writer
from modelyard.packing.papers import Papers
from modelyard.packing.requirements import lock_of

if TYPE_CHECKING:
    from modelyard._client import Client
    from modelyard._transport.config import ConnectionSettings
    from modelyard.metadata.v1 import version_pb2

TIMEOUT = 300.0
_POLL = 0.2


class Origin(Protocol):
    """The run that a version comes from."""

    name: str
    settings: ConnectionSettings

    @property
    def model(self) -> str:
        """Return the id of the model that it trains."""

    def sync(self) -> None:
        """Wait until the server has everything that was logged."""


def publish(
    source: Any,
    *,
    run: Origin | None = None,
    model: str | None,
    example: Any,
    requirements: Sequence[str] | str | Path | None,
    aliases: Sequence[str],
    label: str,
    labels: Mapping[str, str] | None,
    description: str,
    card: str | Path,
    license: str,
    sign_key: str | Path | None,
) -> version_pb2.Version:
    """Register a model as a version of a run, or of none; `modelyard.log_model` says it all."""
    target = _target(model, run)
    text = card.read_text(encoding="utf-8") if isinstance(card, Path) else card
    with tempfile.TemporaryDirectory(prefix="modelyard-") as folder:
        bundle = write_bundle(
            Path(folder),
            source,
            name=target,
            example=example,
            requirements=requirements,
            papers=Papers(text, license),
        )
        with _client_of(run) as client:
            artifact = client.artifacts.push(bundle.directory)
            signed = None if sign_key is None else _signed(client, artifact.name, target, sign_key)
            if run is not None:
                run.sync()
            version = client.versions.create(
                target,
                artifact,
                run=run.name if run else None,
                label=label,
                description=description,
                labels=labels,
                card=text or bundle.card,
                license=license or bundle.license,
                environment_digest=bundle.environment_digest,
                aliases=aliases,
            )
            if signed is not None:
                client.signatures.add(version, signed)
            return _until_ready(client, version)


def _signed(client: Client, artifact: str, name: str, key: str | Path) -> bytes:
    """Sign before there is a version: with a bad key there will be none."""
    from modelyard._evidence import signing as _signing  # noqa: PLC0415 - an extra

    return _signing.sign(name, client.artifacts.files(artifact), key)


def write_bundle(
    directory: Path,
    source: Any,
    *,
    name: str,
    example: Any = None,
    requirements: Sequence[str] | str | Path | None = None,
    papers: Papers = writer.NO_PAPERS,
) -> Bundle:
    """Write the bundle of whatever `log_model` takes into an empty folder."""
    given: dict[str, Any] = {
        "name": name,
        "lock": lock_of(requirements),
        "example": example,
        "papers": papers,
    }
    if isinstance(source, Model):
        return writer.write_model(directory, source, **given)
    if isinstance(source, str | Path):
        return writer.write_folder(directory, Path(source).expanduser(), **given)
    return writer.write_estimator(directory, source, **given)


def _target(model: str | None, run: Origin | None) -> str:
    target = model or (run.model if run else "")
    if not target:
        raise ModelyardError("say which model: log_model(…, model=ID)", reason="INVALID_FIELD")
    return target


def _client_of(run: Origin | None) -> Client:
    from modelyard._client import Client  # noqa: PLC0415 - imports grpc

    if run is None:
        return Client(timeout=TIMEOUT)
    where = run.settings
    return Client(
        where.server,
        token=where.token,
        project=where.project,
        root_certificates=where.root_certificates,
        timeout=TIMEOUT,
    )


def _until_ready(client: Client, version: version_pb2.Version) -> version_pb2.Version:
    """Wait until a version's bytes are held; the server finishes that also after a crash."""
    from modelyard.metadata.v1 import version_pb2  # noqa: PLC0415 - imports protobuf

    deadline = time.monotonic() + TIMEOUT
    while version.state == version_pb2.VERSION_STATE_PENDING:
        if time.monotonic() > deadline:
            raise ModelyardError(f"{version.name} is not READY yet", reason="DEADLINE_EXCEEDED")
        time.sleep(_POLL)
        version = client.versions.get(version.name)
    if version.state == version_pb2.VERSION_STATE_FAILED:
        raise ModelyardError(version.failure.message, reason=version.failure.reason)
    return version
