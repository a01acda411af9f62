"""What a build keeps beside a version: its image, and the evidence of how it came to be."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

from google.protobuf.field_mask_pb2 import FieldMask

from modelyard import images, registries
from modelyard._evidence import envelope as _envelope
from modelyard._names import Names, Ref
from modelyard._resources.resolving import resolve_version
from modelyard._transfers import pull as _pull
from modelyard._transfers.progress import OnProgress
from modelyard._transfers.recipes import read_whole
from modelyard._transport.binding import AsyncGroup, Group, SyncGroup, flow
from modelyard._transport.calls import Flow, ask, call, new_request_id
from modelyard.builder.v1 import build_pb2
from modelyard.builder.v1 import build_service_pb2 as service
from modelyard.bundle import SCHEMA_FILE
from modelyard.errors import (
    FailedPreconditionError,
    InvalidArgumentError,
    NotFoundError,
    UnavailableError,
)
from modelyard.images import ImageError
from modelyard.metadata.v1 import model_service_pb2, version_pb2

PROVENANCE_FILE = "provenance.json"
SIGNED_FILE = "provenance.dsse.json"
TESTS_FILE = "tests.xml"


class _Images(Group):
    @flow
    def export(
        self,
        version: Ref,
        destination: str | Path,
        *,
        base: str | Path | None = None,
        progress: OnProgress | None = None,
    ) -> Flow[Path]:
        """Write a version's image to a new folder, as an OCI image layout.

        Its one image has the version's number for a tag: `skopeo copy oci:DIR:7 docker://…`. One
        that was made without a base needs one with its Python: `base` is the layout of an image
        to put it on, such as `skopeo copy docker://python:3.11-slim oci:BASE` makes.
        """
        found, build = yield from built(self._names, version)
        return (yield from _export(found, build, Path(destination), base, progress))

    @flow
    def push(
        self,
        version: Ref,
        target: str,
        *,
        base: str | Path | None = None,
        auth_file: str | Path | None = None,
        record: bool = False,
        progress: OnProgress | None = None,
    ) -> Flow[str]:
        """Push a version's image to a container registry (`modelyard[registry]`).

        Args:
            version: Whose image.
            target: Where to: `registry/repository:tag`. Plain HTTP is spoken on this machine only.
            base: As for `export`.
            auth_file: A `config.json` with credentials, as `docker login` writes it, beside the
                one of this account.
            record: Whether the version says from now on that this is its image.
            progress: Called while the image is fetched.

        Returns:
            What names the image for ever: `registry/repository@sha256:…`.

        Raises:
            UnavailableError: REGISTRY_FAILED: the registry refused, or did not answer.
        """
        place = _target(target)
        found, build = yield from built(self._names, version)
        with tempfile.TemporaryDirectory(prefix="modelyard-") as folder:
            layout = yield from _export(found, build, Path(folder, "image"), base, progress)
            reference = _push(layout, place, auth_file)
        if record:
            request = model_service_pb2.UpdateVersionRequest(
                version=version_pb2.Version(name=found.name, image=reference),
                update_mask=FieldMask(paths=["image"]),
                request_id=new_request_id(),
            )
            yield from ask(call(request, model_service_pb2.UpdateVersionResponse, lambda _: None))
        return reference


class Images(_Images, SyncGroup):
    """Container images of versions."""


class AsyncImages(_Images, AsyncGroup):
    """Container images of versions."""


def _export(
    version: version_pb2.Version,
    build: build_pb2.Build,
    layout: Path,
    base: str | Path | None,
    progress: OnProgress | None,
) -> Flow[Path]:
    """Write a version's image to a new folder."""
    if not build.image:
        raise _missing(version, "has no image: it was built without one")
    written = yield from _pull.pull(build.image, layout, progress=progress)
    try:
        if base is not None:
            architecture = images.architecture(written)
            images.put_on_base(written, images.read_base(Path(base), architecture))
        number = version.name.rpartition("/")[2]
        said = {"dev.modelyard.version": version.name, "dev.modelyard.build": build.name}
        images.name_image(written, number, said)
    except ImageError as error:
        shutil.rmtree(written, ignore_errors=True)
        raise InvalidArgumentError(str(error), reason="INVALID_FIELD") from error
    return written


def _target(text: str) -> registries.Target:
    try:
        return registries.Target.parse(text)
    except ValueError as error:
        raise InvalidArgumentError(str(error), reason="INVALID_FIELD") from None


def _push(layout: Path, target: registries.Target, auth_file: str | Path | None) -> str:
    try:
        return registries.push(layout, target, auth_file=Path(auth_file) if auth_file else None)
    except registries.RegistryError as error:
        raise UnavailableError(str(error), reason="REGISTRY_FAILED") from error


def read_evidence(names: Names, target: Ref, path: str) -> Flow[bytes]:
    """Return a file of the evidence of a version's build."""
    version, build = yield from built(names, target)
    files = (yield from _pull.list_files(build.evidence)) if build.evidence else ()
    if not any(file.path == path for file in files):
        raise _missing(version, f"has no {path}: its build left none")
    return (yield from read_whole(build.evidence, path))


def read_provenance(names: Names, target: Ref, key: str | Path | None) -> Flow[bytes]:
    """Return how a version was built; with a key only what was signed with it, of this version."""
    if key is None:
        return (yield from read_evidence(names, target, PROVENANCE_FILE))
    version, build = yield from built(names, target)
    files = (yield from _pull.list_files(build.evidence)) if build.evidence else ()
    if not any(file.path == SIGNED_FILE for file in files):
        message = f"the provenance of {version.name} is not signed"
        raise FailedPreconditionError(message, reason="SIGNATURE_MISSING")
    envelope = yield from read_whole(build.evidence, SIGNED_FILE)
    statement = _envelope.verify(envelope, key)
    _check_subject(statement, version)
    return statement


def _check_subject(statement: bytes, version: version_pb2.Version) -> None:
    """Refuse a good signature of what another version was built from."""
    try:
        subjects = {s["name"]: s["digest"]["sha256"] for s in json.loads(statement)["subject"]}
    except (ValueError, KeyError, TypeError):
        subjects = {}
    if subjects.get(version.artifact) != version.artifact.rpartition("/")[2]:
        message = f"the signed statement is about another artifact than {version.artifact}"
        raise FailedPreconditionError(message, reason="SIGNATURE_INVALID")


def read_schema(names: Names, target: Ref) -> Flow[dict[str, Any] | None]:
    """Return what goes into a version's model and what comes out of it, if that is known."""
    version = yield from ask(resolve_version(names, target))
    files = yield from _pull.list_files(version.artifact)
    if not any(file.path == SCHEMA_FILE for file in files):
        return None
    found: dict[str, Any] = json.loads((yield from read_whole(version.artifact, SCHEMA_FILE)))
    return found


def built(names: Names, target: Ref) -> Flow[tuple[version_pb2.Version, build_pb2.Build]]:
    """Return a version and the build that made it; refuse one that no build made."""
    version = yield from ask(resolve_version(names, target))
    if not version.build:
        raise _missing(version, "was not built here")
    request = service.GetBuildRequest(name=version.build)
    try:
        build = yield from ask(call(request, service.GetBuildResponse, lambda r: r.build))
    except NotFoundError:
        raise _missing(version, f"says it was made by {version.build}, which is not here") from None
    return version, build


def _missing(version: version_pb2.Version, problem: str) -> FailedPreconditionError:
    return FailedPreconditionError(f"{version.name} {problem}", reason="EVIDENCE_MISSING")
