"""Fetch one commit of a repository over HTTP: a program of its own, which the worker can end.

The order is a JSON object on standard input, so that no credential is in an argument; the
answer is one on standard output: the commit and the branch, or the problem in words for
whoever ordered the build. Files are written from the commit's tree itself: nothing is checked
out, so no hook, filter, submodule or attribute of the repository is followed or run.
"""

from __future__ import annotations

import json
import resource
import stat
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

import urllib3
from dulwich.client import HTTPUnauthorized, Urllib3HttpGitClient, default_urllib3_manager
from dulwich.errors import GitProtocolError, HangupException, NotGitRepository
from dulwich.object_store import iter_tree_contents
from dulwich.objects import Blob, Commit, ObjectID, Tag, Tree
from dulwich.repo import Repo
from modelyard._transfers.tree import check_paths
from modelyard.errors import InvalidArgumentError

MAX_FILES = 100_000
SPARE_BYTES = 2 * 1024**3
NETWORK_SECONDS = 60.0
_HEADS, _TAGS, _PEELED = b"refs/heads/", b"refs/tags/", b"^{}"


class FetchError(Exception):
    """Why there is no source; the text is for whoever ordered the build."""


_FAILURES = (
    FetchError,
    HTTPUnauthorized,
    NotGitRepository,
    GitProtocolError,
    HangupException,
    MemoryError,
    OSError,
)


@dataclass(frozen=True, slots=True)
class Order:
    """What to fetch, where to, and how much of it at most."""

    url: str
    ref: str
    subdirectory: str
    folder: str
    schemes: tuple[str, ...]
    max_bytes: int
    username: str = ""
    password: str = ""


class _Guarded:
    """Looks at every address before it is connected to, those of redirects too."""

    schemes: tuple[str, ...] = ()

    def urlopen(self, method: str, url: str, *args: Any, **options: Any) -> Any:
        """Open an address, if its scheme is allowed."""
        scheme = urlsplit(url).scheme
        if scheme and scheme not in self.schemes:
            raise FetchError(f"this worker does not fetch from {scheme}:// addresses")
        return super().urlopen(method, url, *args, **options)  # type: ignore[misc]


class _Pool(_Guarded, urllib3.PoolManager):
    pass


class _Proxies(_Guarded, urllib3.ProxyManager):
    pass


def fetch(order: Order) -> dict[str, str]:
    """Fetch a commit's files into the order's folder; return the commit and the branch.

    Raises:
        FetchError: there is no such thing, we are not let in, or it is too large.
    """
    client = _connect(order)
    listed = client.get_refs(b"")
    if client.dumb:
        raise FetchError(f"{order.url} does not speak git's smart protocol")
    refs = {
        bytes(name): sha
        for name, sha in listed.refs.items()
        if sha is not None and not name.endswith(_PEELED)
    }
    symbolic = {bytes(name): bytes(target) for name, target in listed.symrefs.items()}
    wanted, branch = resolve(order.ref, refs, symbolic)
    with tempfile.TemporaryDirectory(prefix=".git-", dir=Path(order.folder).parent) as scratch:
        repository = Repo.init_bare(scratch)
        try:
            _fetch_commit(client, repository, wanted, refs)
            commit = _commit(repository, wanted, order)
            write_files(repository, _tree(repository, commit, order), Path(order.folder), order)
        finally:
            repository.close()
    return {"commit": commit.id.decode(), "branch": branch}


def resolve(
    ref: str, refs: Mapping[bytes, ObjectID], symbolic: Mapping[bytes, bytes]
) -> tuple[ObjectID, str]:
    """Return what a ref points to, and its branch if it is one; empty: the default branch.

    Raises:
        FetchError: there is no such branch or tag.
    """
    if not ref:
        head = symbolic.get(b"HEAD", b"")
        if b"HEAD" not in refs:
            raise FetchError("the repository is empty or has no default branch; name a ref")
        return refs[b"HEAD"], head.removeprefix(_HEADS).decode()
    name = ref.encode()
    for full in (name, _HEADS + name, _TAGS + name):
        if full in refs and full.startswith(b"refs/"):
            is_branch = full.startswith(_HEADS)
            return refs[full], full.removeprefix(_HEADS).decode() if is_branch else ""
    if len(ref) == 40 and set(ref) <= set("0123456789abcdef"):
        return ObjectID(name), ""
    raise FetchError(f"the repository has no branch or tag {ref!r}, nor is that a full commit")


def write_files(repository: Repo, tree: ObjectID, folder: Path, order: Order) -> None:
    """Write a tree's files; folders of submodules are left out.

    Raises:
        FetchError: there is too much of it, a link, or a path that no tree may have.
    """
    store, left = repository.object_store, order.max_bytes
    files = list(_files(repository, tree))
    for path, mode, sha in files:
        left -= store[sha].raw_length()
        if left < 0:
            raise FetchError(f"the source has more than {order.max_bytes} bytes")
        place = folder / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(cast("Blob", store[sha]).data)
        place.chmod(0o755 if mode & stat.S_IXUSR else 0o644)


def _files(repository: Repo, tree: ObjectID) -> Iterator[tuple[str, int, ObjectID]]:
    found: list[tuple[str, int, ObjectID]] = []
    for entry in iter_tree_contents(repository.object_store, tree):
        if entry.path is None or entry.mode is None or entry.sha is None:
            continue
        try:
            path = entry.path.decode()
        except UnicodeDecodeError:
            raise FetchError(f"the path {entry.path!r} is not UTF-8") from None
        if stat.S_ISLNK(entry.mode):
            raise FetchError(f"{path!r} is a symbolic link; a source holds files only")
        if stat.S_ISREG(entry.mode):  # a submodule is none
            found.append((path, entry.mode, entry.sha))
        if len(found) > MAX_FILES:
            raise FetchError(f"the source has more than {MAX_FILES} files")
    try:
        check_paths(path for path, _, _ in found)
    except InvalidArgumentError as error:
        raise FetchError(error.message) from None
    return iter(found)


def _connect(order: Order) -> Urllib3HttpGitClient:
    for kind in (_Pool, _Proxies):
        kind.schemes = order.schemes
    manager = default_urllib3_manager(
        *(None, _Pool, _Proxies),
        base_url=order.url,
        timeout=NETWORK_SECONDS,
        cert_reqs="CERT_REQUIRED",
    )
    return Urllib3HttpGitClient(
        order.url,
        pool_manager=manager,
        username=order.username or None,
        password=order.password or None,
        timeout=NETWORK_SECONDS,
        quiet=True,
    )


def _fetch_commit(
    client: Urllib3HttpGitClient,
    repository: Repo,
    wanted: ObjectID,
    refs: Mapping[bytes, ObjectID],
) -> None:
    """Fetch a commit alone; from a server that shows tips only, all that leads up to them."""
    try:
        client.fetch(b"", repository, determine_wants=lambda *_, **__: [wanted], depth=1)
    except (GitProtocolError, HangupException):
        if wanted in refs.values():
            raise
        tips = sorted({sha for name, sha in refs.items() if name.startswith((_HEADS, _TAGS))})
        client.fetch(b"", repository, determine_wants=lambda *_, **__: tips)


def _commit(repository: Repo, wanted: ObjectID, order: Order) -> Commit:
    try:
        found = repository.object_store[wanted]
        while isinstance(found, Tag):
            found = repository.object_store[found.object[1]]
    except KeyError:
        raise FetchError(f"the repository has no commit {order.ref!r}") from None
    if not isinstance(found, Commit):
        raise FetchError(f"{order.ref!r} is no commit")
    return found


def _tree(repository: Repo, commit: Commit, order: Order) -> ObjectID:
    found: ObjectID = commit.tree
    for part in filter(None, order.subdirectory.split("/")):
        try:
            mode, found = cast("Tree", repository.object_store[found])[part.encode()]
        except KeyError:
            mode = 0
        if not stat.S_ISDIR(mode):
            raise FetchError(f"the repository has no folder {order.subdirectory!r}")
    return found


def _answer(order: Order) -> dict[str, str]:
    """Fetch, or say in words why not."""
    try:
        return fetch(order)
    except _FAILURES as error:
        return {"problem": _words(error, order)}


def _words(error: Exception, order: Order) -> str:
    match error:
        case FetchError():
            told = str(error)
        case HTTPUnauthorized():
            asks = "asks for credentials: name a secret"
            told = f"{order.url} {'refuses the secret' if order.password else asks}"
        case NotGitRepository():
            told = f"there is no repository at {order.url}, or it is not shown to us"
        case MemoryError():
            told = "the repository is too large for this worker's memory"
        case OSError():
            told = f"the repository cannot be kept: {error.strerror}"
        case GitProtocolError(__cause__=urllib3.exceptions.HTTPError() as cause):
            told = f"{order.url} {_unreachable(cause)}"
        case _:
            told = f"{order.url} cannot be fetched: {str(error)[:500] or 'it hung up'}"
    return told


def _unreachable(error: urllib3.exceptions.HTTPError) -> str:
    match getattr(error, "reason", error):
        case urllib3.exceptions.SSLError():
            return "has a certificate that this worker does not trust"
        case urllib3.exceptions.NameResolutionError():
            return "has a host name that does not exist"
        case urllib3.exceptions.TimeoutError() | urllib3.exceptions.NewConnectionError():
            return "cannot be reached"
    return "broke off the connection"


def _confine(order: Order) -> None:
    """Be stopped by the kernel at any file or memory beyond the limit."""
    memory = SPARE_BYTES + 2 * order.max_bytes
    for limit, value in (
        (resource.RLIMIT_FSIZE, order.max_bytes),
        (resource.RLIMIT_AS, memory),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(limit, (value, value))


def main() -> None:
    """Do as standard input says."""
    order = Order(**json.load(sys.stdin))
    _confine(order)
    json.dump(_answer(order), sys.stdout)


if __name__ == "__main__":
    main()
