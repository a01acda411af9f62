"""`client.artifacts`: trees of files, named by their content."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path

from modelyard._evidence.signing import PublicKey
from modelyard._names import Names, Ref, is_artifact
from modelyard._resources.resolving import resolve_version
from modelyard._resources.signatures import verify_version
from modelyard._transfers import opening as _opening
from modelyard._transfers import pull as _pull
from modelyard._transfers import push as _push
from modelyard._transfers import recipes as _recipes
from modelyard._transfers.cache import Cache
from modelyard._transfers.progress import OnProgress
from modelyard._transport.binding import AsyncGroup, Group, SyncGroup, flow, paged, unary
from modelyard._transport.calls import BYTES_TIMEOUT, Call, Flow, Pages, ask, call, pages
from modelyard.artifact.v1 import artifact_pb2, format_service_pb2, link_service_pb2
from modelyard.artifact.v1 import artifact_service_pb2 as service


class _Artifacts(Group):
    @flow
    def push(
        self,
        path: str | Path,
        *,
        ignore: Sequence[str] = (),
        known: Mapping[str, str] | None = None,
        progress: OnProgress | None = None,
        project: Ref | None = None,
    ) -> Flow[artifact_pb2.Artifact]:
        """Send a folder or a file; only what the project does not have travels.

        Links, devices and names that not every system can hold are refused. A pattern of `ignore`
        leaves out what it names in any folder; of a file whose SHA-256 is `known`, by its path,
        no byte is read if it is stored. `progress` is called with a `Progress` as bytes
        get done. After a break of any kind, push again: what has arrived is not sent again.
        """
        parent = self._names.project(project)
        return (
            yield from _push.push(parent, Path(path), ignore=ignore, known=known, progress=progress)
        )

    @flow
    def pull(
        self,
        source: Ref,
        destination: str | Path,
        *,
        progress: OnProgress | None = None,
        cache: Cache | str | Path | None = None,
        verify_key: PublicKey | None = None,
    ) -> Flow[Path]:
        """Write a version's or an artifact's files to a new folder, verified, all or nothing.

        After a break of any kind, pull the same to the same place again: what is there is
        verified and kept. With a cache, by default the one that MODELYARD_CACHE names, files
        are fetched once for all processes of a host, are read-only and hard-linked. With a
        `verify_key` nothing is fetched unless a signature of the version holds with it.
        """
        if verify_key is None:
            artifact = yield from artifact_of(self._names, source)
        else:
            # An alias may move meanwhile: what is verified is what is fetched.
            version = yield from ask(resolve_version(self._names, source))
            yield from verify_version(version, verify_key)
            artifact = version.artifact
        chosen = Cache.of(cache)
        return (yield from _pull.pull(artifact, Path(destination), progress=progress, cache=chosen))

    @unary
    def get(self, artifact: Ref) -> Call[artifact_pb2.Artifact]:
        """Get an artifact by its digest or name."""
        request = service.GetArtifactRequest(name=self._names.artifact(artifact))
        return call(request, service.GetArtifactResponse, lambda r: r.artifact)

    @unary
    def hold(self, artifact: Ref, *, holder: str) -> Call[artifact_pb2.Hold]:
        """Keep an artifact for as long as something needs it, named by its resource name."""
        hold = artifact_pb2.Hold(artifact=self._names.artifact(artifact), holder=holder)
        request = service.HoldArtifactRequest(hold=hold)
        return call(request, service.HoldArtifactResponse, lambda r: r.hold)

    @paged
    def holds(self, artifact: Ref) -> Pages[artifact_pb2.Hold]:
        """List what holds an artifact: why its bytes are kept."""
        request = service.ListHoldsRequest(artifact=self._names.artifact(artifact))
        return pages(request, service.ListHoldsResponse, lambda r: r.holds)

    @flow
    def files(self, source: Ref, *, prefix: str = "") -> Flow[Sequence[artifact_pb2.File]]:
        """List the files of a version or an artifact, by path."""
        artifact = yield from artifact_of(self._names, source)
        return (yield from _pull.list_files(artifact, prefix=prefix))

    @flow
    def read(self, source: Ref, path: str) -> Flow[bytes]:
        """Return the bytes of one file of a version or an artifact.

        They are verified by the SHA-256 that the service lists for the file; that it lists the
        right one, only `pull` and `files` make sure of, by the artifact's digest.
        """
        artifact = yield from artifact_of(self._names, source)
        return (yield from _recipes.read_whole(artifact, path))

    @flow
    def _window(self, source: Ref, path: str) -> Flow[_opening.Window]:
        artifact = yield from artifact_of(self._names, source)
        return _opening.Window(artifact, (yield from _recipes.read_recipe(artifact, path)))

    @flow
    def formats(self, source: Ref) -> Flow[format_service_pb2.GetFormatReportResponse]:
        """Say what a version's or an artifact's files are by their content, and which are unsafe.

        Nothing is loaded. ALLOWED formats hold no code; loading an UNSAFE file runs what it says.
        """
        artifact = yield from artifact_of(self._names, source)
        request = format_service_pb2.GetFormatReportRequest(artifact=artifact)
        wanted = call(
            request,
            format_service_pb2.GetFormatReportResponse,
            lambda r: r,
            timeout=BYTES_TIMEOUT,
        )
        return (yield from ask(wanted))

    @flow
    def url(
        self, source: Ref, path: str = "", *, lifetime: timedelta = timedelta(minutes=15)
    ) -> Flow[str]:
        """Make a URL that reads one file, with ranges, for tools that only speak HTTP.

        A path that ends with `/`, or none, makes one for all files below it: put a file's path
        in place of its `{path}`. Whoever has a URL may read, for at most a day.
        """
        artifact = yield from artifact_of(self._names, source)
        request = link_service_pb2.CreateLinkRequest(artifact=artifact, path=path)
        request.lifetime_duration.FromTimedelta(lifetime)
        wanted = call(request, link_service_pb2.CreateLinkResponse, lambda r: r.url)
        return (yield from ask(wanted))


class Artifacts(_Artifacts, SyncGroup):
    """Trees of files, named by their content."""

    def open(self, source: Ref, path: str) -> io.BufferedReader:
        """Open one file of a version or an artifact: seekable, read by ranges as wanted.

        Each chunk is verified by the digest that the service recorded when it verified the file.
        """
        return _opening.open_blocking(self._connection, self._window(source, path), path)


class AsyncArtifacts(_Artifacts, AsyncGroup):
    """Trees of files, named by their content."""

    async def open(self, source: Ref, path: str) -> _opening.AsyncFile:
        """Open one file of a version or an artifact: seekable, read by ranges as wanted.

        Each chunk is verified by the digest that the service recorded when it verified the file.
        """
        return _opening.AsyncFile(self._connection, await self._window(source, path), path)


def artifact_of(names: Names, source: Ref) -> Flow[str]:
    """Return the name of an artifact that is named itself or by its version."""
    if is_artifact(source):
        return names.artifact(source)
    return (yield from ask(resolve_version(names, source))).artifact
