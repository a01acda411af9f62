"""Receiving a tree of files: list, read, verify, and only then give it its name.

Nothing is trusted: the paths are checked again, each file's size and SHA-256, and the
digest of the whole. What is not complete never has the final name: it lies in a hidden
folder beside it, and pulling the same again goes on with what is right there.
"""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
import shutil
import stat
import sys
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from modelyard._names import id_of
from modelyard._transfers.cache import Cache, try_lock, unlocking
from modelyard._transfers.fetching import SMALL_BYTES, Wanted, fetch_large, fetch_small
from modelyard._transfers.progress import Meter, OnProgress
from modelyard._transfers.tree import Entry, check_paths, tree_digest
from modelyard._transport.calls import BYTES_TIMEOUT, Call, Flow, ask, pages, side_by_side
from modelyard.artifact.v1 import artifact_pb2
from modelyard.artifact.v1 import artifact_service_pb2 as service
from modelyard.errors import AlreadyExistsError, DataLossError

FILES_PER_ARTIFACT = 200_000
"""More than any server keeps: one that lists on is not listened to."""
_FILES_PER_PAGE = 1000
_FILES_PER_UNIT = 1000
_UNIT_BYTES = 16 * 1024 * 1024
_UNITS_AT_ONCE = 3
_OCCUPIED = frozenset({errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR})


def pull(
    artifact: str,
    destination: Path,
    *,
    progress: OnProgress | None = None,
    cache: Cache | None = None,
) -> Flow[Path]:
    """Write an artifact's files to a folder that does not exist yet, all or nothing."""
    target = destination.expanduser().absolute()
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise _there_already(target)
    files = yield from list_files(artifact)
    meter = Meter(sum(file.size_bytes for file in files), progress)
    target.parent.mkdir(parents=True, exist_ok=True)
    with _partial(target, id_of(artifact)) as folder:
        wanted = [Wanted(file, folder.joinpath(*file.path.split("/"))) for file in files]
        _make_room(folder, wanted)
        units = (_fetch(artifact, unit, meter, cache) for unit in _units(wanted))
        yield from side_by_side(units, limit=_UNITS_AT_ONCE)
        for one in wanted:
            if one.file.executable and not cache:
                _make_executable(one.place)
        _give_name(folder, target)
    if cache:
        cache.evict()
    return target


def list_files(artifact: str, *, prefix: str = "") -> Flow[Sequence[artifact_pb2.File]]:
    """Return an artifact's files by path, checked against its digest; some if there is a prefix."""
    request = service.ListFilesRequest(artifact=artifact, page_size=_FILES_PER_PAGE)
    wanted = pages(request, service.ListFilesResponse, lambda r: r.files)
    files: list[artifact_pb2.File] = []
    token, more = "", True
    while more:
        page = wanted.page(token)
        found, token = yield from ask(Call(page.request, page.response, page.pick, BYTES_TIMEOUT))
        files += found
        more = bool(token) and len(files) <= FILES_PER_ARTIFACT
    check_paths(file.path for file in files)
    entries = [Entry(f.path, f.executable, f.size_bytes, f.sha256) for f in files]
    if tree_digest(entries) != id_of(artifact):
        raise DataLossError(
            f"the files listed for {artifact} are not those that its digest names",
            reason="CORRUPT_BYTES",
            metadata={"digest": id_of(artifact)},
        )
    return [file for file in files if file.path.startswith(prefix)]


def _units(wanted: Iterable[Wanted]) -> Iterator[list[Wanted]]:
    """Yield large files by themselves, small ones in groups."""
    unit: list[Wanted] = []
    size = 0
    for one in wanted:
        if one.file.size_bytes > SMALL_BYTES:
            yield [one]
            continue
        if len(unit) == _FILES_PER_UNIT or size + one.file.size_bytes > _UNIT_BYTES:
            yield unit
            unit, size = [], 0
        unit.append(one)
        size += one.file.size_bytes
    if unit:
        yield unit


def _fetch(artifact: str, unit: Sequence[Wanted], meter: Meter, cache: Cache | None) -> Flow[None]:
    if cache is None:
        yield from _fetch_here(artifact, unit, meter)
        return
    new = deque(unit)

    def is_needed() -> bool:
        """Take what others have put into the cache meanwhile; say whether any is still missing."""
        while new and cache.hand_out(new[0].file, new[0].place):
            new.popleft()
        return bool(new)

    # One lock a unit: whoever holds one never waits for another.
    key = hashlib.sha256("".join(one.file.sha256 for one in unit).encode()).hexdigest()
    with unlocking((yield from cache.lock(key, is_needed=is_needed))):
        missing = [one for one in new if not cache.hand_out(one.file, one.place)]
        meter.add(_size(unit) - _size(missing), present=True)
        if missing:
            yield from _fetch_together(artifact, missing, meter, cache, key)


def _size(wanted: Iterable[Wanted]) -> int:
    return sum(one.file.size_bytes for one in wanted)


def _fetch_together(
    artifact: str, missing: Sequence[Wanted], meter: Meter, cache: Cache, key: str
) -> Flow[None]:
    """Fetch what the cache has not, for all that share it, with the lock of `key`."""
    places: dict[Path, list[Wanted]] = {}
    for one in missing:
        places.setdefault(cache.partial(key, one.file), []).append(one)
    together = [Wanted(some[0].file, place) for place, some in places.items()]
    yield from _fetch_here(artifact, together, meter)
    for some in places.values():
        cache.adopt(key, some[0].file, [one.place for one in some])
    cache.clear(key)


def _fetch_here(artifact: str, unit: Sequence[Wanted], meter: Meter) -> Flow[None]:
    if len(unit) == 1 and unit[0].file.size_bytes > SMALL_BYTES:
        yield from fetch_large(artifact, unit[0], meter)
    else:
        yield from fetch_small(artifact, unit, meter)


@contextmanager
def _partial(target: Path, digest: str) -> Iterator[Path]:
    """Make a folder beside the target, so that a rename puts it there at once.

    It is the one that an earlier pull of the same left, unless that is still at work.
    """
    folder = target.with_name(f".{target.name[:100]}.partial-{digest[:16]}")
    descriptor = _take_over(folder)
    if descriptor is None:
        folder = folder.with_name(f"{folder.name}-{secrets.token_hex(8)}")
        folder.mkdir()
    try:
        yield folder
    except BaseException as error:
        is_useless = isinstance(error, AlreadyExistsError) or not any(folder.iterdir())
        if descriptor is None or is_useless:
            shutil.rmtree(folder, ignore_errors=True)
        raise
    finally:
        if descriptor is not None:
            os.close(descriptor)


def _give_name(folder: Path, target: Path) -> None:
    try:
        folder.rename(target)
    except OSError as problem:  # what was not there when this began may be now
        if problem.errno not in _OCCUPIED:
            raise
        raise _there_already(target) from None


def _there_already(target: Path) -> AlreadyExistsError:
    return AlreadyExistsError(f"{target} is there already", reason="DESTINATION_EXISTS")


def _take_over(folder: Path) -> int | None:
    """Make a folder, or take an own one that is there; None when another is at work in it."""
    if sys.platform == "win32":
        return None
    folder.mkdir(exist_ok=True)
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    found = os.fstat(descriptor)
    own = found.st_uid == os.geteuid() and not found.st_mode & stat.S_IWOTH
    if own and try_lock(descriptor) and _is_still(folder, found):
        return descriptor
    os.close(descriptor)
    return None


def _is_still(folder: Path, found: os.stat_result) -> bool:
    # Whoever had the lock may have given the folder its final name.
    try:
        return os.path.samestat(folder.lstat(), found)
    except FileNotFoundError:
        return False


def _make_room(folder: Path, wanted: Sequence[Wanted]) -> None:
    """Make the folders, and remove what does not belong to the tree."""
    places = {one.place for one in wanted}
    homes = {place.parent for place in places}
    folders = homes.union(*(home.parents for home in homes))
    for found in sorted(folder.rglob("*"), reverse=True):
        is_folder = found.is_dir() and not found.is_symlink()
        if is_folder and found not in folders:
            found.rmdir()
        elif not is_folder and (found not in places or _is_linked(found)):
            found.unlink()
    for home in homes:
        home.mkdir(parents=True, exist_ok=True)


def _is_linked(place: Path) -> bool:
    """Say whether writing to a file would write to another too, such as one in a cache."""
    return place.is_symlink() or place.stat().st_nlink > 1


def _make_executable(place: Path) -> None:
    # Whoever may read it may run it: the user's umask was applied at creation.
    mode = place.stat().st_mode
    place.chmod(mode | (mode & 0o444) >> 2)
