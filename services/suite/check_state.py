"""`modelyard check-state`: whether what the services promise is true of what they keep.

It only reads, also beside a running suite; a purge meanwhile may then look like a loss.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path

from services.artifact import checking as artifact
from services.artifact.settings import PREFIX as ARTIFACT
from services.artifact.settings import ArtifactSettings
from services.builder import checks_store as builder
from services.common.settings import load
from services.common.sql.checks import Finding, read_only
from services.deployer.store import checks_store as deployer
from services.metadata import checks_store as metadata


@dataclasses.dataclass(frozen=True, slots=True)
class Places:
    """Where an installation keeps what it keeps; what is empty is not checked."""

    metadata: str
    builder: str
    deployer: str
    artifact: ArtifactSettings | None


def in_folder(data: Path) -> Places:
    """Return the places of an embedded suite; a database that was never made is left out."""
    urls = {
        name: f"sqlite:///{data / f'{name}.db'}" if (data / f"{name}.db").exists() else ""
        for name in ("metadata", "builder", "deployer")
    }
    folder = data / "artifact"
    stored = ArtifactSettings(data=str(folder)) if (folder / "artifact.db").exists() else None
    return Places(**urls, artifact=stored)


def in_settings(environ: Mapping[str, str]) -> Places:
    """Return the places that `MODELYARD_<SERVICE>_*` name."""
    urls = {
        name: environ.get(f"MODELYARD_{name.upper()}_DATABASE_URL", "")
        for name in ("metadata", "builder", "deployer")
    }
    stored = any(name.startswith(ARTIFACT) for name in environ)
    return Places(**urls, artifact=load(ArtifactSettings, ARTIFACT, environ) if stored else None)


def check_state(places: Places) -> Iterator[Finding]:
    """Check everything; each finding is something that must never be.

    The order is that of promises: what is visible is looked for where it must have been before.
    """
    versions: Mapping[str, str] = {}
    succeeded: Mapping[str, str] = {}
    registered: Mapping[str, list[str]] = {}
    if places.deployer:
        with read_only(places.deployer) as connection:
            yield from deployer.check(connection)
    if places.builder:
        with read_only(places.builder) as connection:
            yield from builder.check(connection)
            succeeded = builder.succeeded(connection)
    if places.metadata:
        with read_only(places.metadata) as connection:
            yield from metadata.check(connection)
            versions, registered = metadata.visible(connection), metadata.registered(connection)
        yield from _builds(succeeded, registered)
    if places.artifact is not None:
        yield from artifact.check(places.artifact, versions)


def _builds(succeeded: Mapping[str, str], registered: Mapping[str, list[str]]) -> Iterator[Finding]:
    for build, made in registered.items():
        if len(made) > 1:
            yield Finding("builds", build, f"was registered {len(made)} times: {', '.join(made)}")
        if build in succeeded and succeeded[build] not in made:
            yield Finding("builds", build, f"says {succeeded[build]}; metadata has {made[0]}")
