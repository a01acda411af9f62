"""How the code of two subjects differs: by their snapshots, bundles or commits."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence

from services.common.errors import Reason, ServiceError
from services.metadata.comparisons import patching, worktrees
from services.metadata.comparisons.domain import CodeDifference, Subject
from services.metadata.comparisons.patching import Side, TooLongError
from services.metadata.comparisons.trees import Entry, Trees
from services.metadata.runs.domain import CodeSource

FILE_BYTES = 512 * 1024
READ_BYTES = 8 * 1024 * 1024
DIFF_BYTES = 1024 * 1024
ALL_DIFF_BYTES = 2 * 1024 * 1024
TREE_FILES = 20_000
CALL_SECONDS = 10.0
# Kept back of the caller's time, to send the answer.
RESERVE_SECONDS = 1.0
READERS = 8
NAMED = 20

CUT_MARK = "\n[cut by modelyard"
BUNDLED = "code/"


class Reading:
    """What one comparison reads of the artifact service: each thing once, within bounds."""

    def __init__(self, trees: Trees, *, credential: str, deadline: float) -> None:
        self._trees = trees
        self._credential = credential
        self._lists: dict[tuple[str, str], Mapping[str, Entry] | None] = {}
        self._files: dict[str, bytes] = {}
        self._left = READ_BYTES
        self._readers = asyncio.Semaphore(READERS)
        self.deadline = deadline

    async def tree(self, artifact: str, prefix: str) -> Mapping[str, Entry] | None:
        """Return a tree's files; None when there are too many."""
        key = (artifact, prefix)
        if key not in self._lists:
            self._lists[key] = await self._trees.files(
                artifact,
                prefix,
                credential=self._credential,
                seconds=self._seconds(),
                limit=TREE_FILES,
            )
        return self._lists[key]

    async def file(self, artifact: str, path: str, entry: Entry) -> bytes | None:
        """Return a file's bytes; None when they are too many."""
        if entry.sha256 in self._files:
            return self._files[entry.sha256]
        if entry.size > min(FILE_BYTES, self._left):
            return None
        self._left -= entry.size
        async with self._readers:
            data = await self._trees.read(
                artifact, path, credential=self._credential, seconds=self._seconds()
            )
        self._files[entry.sha256] = data
        return data

    def _seconds(self) -> float:
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise ServiceError(Reason.DEADLINE_EXCEEDED, "the time for reading sources is up")
        return min(left, CALL_SECONDS)


class Sources:
    """Tells how code differs."""

    def __init__(self, trees: Trees) -> None:
        self._trees = trees

    async def differences(
        self, subjects: Sequence[Subject], *, credential: str, seconds: float
    ) -> list[CodeDifference]:
        """Return how each subject's code but the first's differs from the first's.

        What cannot be told, because of bounds, time or a service that is away, is a note.
        """
        first, *others = subjects
        deadline = time.monotonic() + max(seconds - RESERVE_SECONDS, seconds / 2)
        reading = Reading(self._trees, credential=credential, deadline=deadline)
        left, found = ALL_DIFF_BYTES, []
        for other in others:
            difference = _cut(await self._difference(first, other, reading), left)
            left -= len(difference.unified_diff.encode())
            found.append(difference)
        return found

    async def _difference(self, first: Subject, other: Subject, reading: Reading) -> CodeDifference:
        try:
            return await _between(first, other, reading)
        except TooLongError:
            return CodeDifference(note="the sources are too long to compare in the time there is")
        except worktrees.UnreadableError as error:
            return CodeDifference(note=f"{error}, so how the code differs cannot be told")
        except ServiceError as error:
            # The rest of the comparison is good without the code.
            return CodeDifference(note=f"the sources could not be read ({error.reason.value})")


async def _between(first: Subject, other: Subject, reading: Reading) -> CodeDifference:
    ours, theirs = first.code or CodeSource(), other.code or CodeSource()
    if ours.snapshot and theirs.snapshot:
        return await _trees(reading, (ours.snapshot, theirs.snapshot), prefix="")
    if ours.commit and ours.commit == theirs.commit:
        return await _worktrees(ours, theirs, reading.deadline)
    if first.bundle and other.bundle:
        found = await _bundles(reading, (first.bundle, other.bundle))
        if found is not None:
            return _noted(
                found, "compared is the code in the versions' bundles", _hint(first, other)
            )
    return CodeDifference(note=_hint(first, other) or _unknown(first, other))


def _hint(first: Subject, other: Subject) -> str:
    ours, theirs = first.code or CodeSource(), other.code or CodeSource()
    if not (ours.commit and theirs.commit) or ours.commit == theirs.commit:
        return ""
    dirty = "; uncommitted changes come on top" if ours.dirty or theirs.dirty else ""
    return f"the commits differ{dirty}: git diff {ours.commit} {theirs.commit}"


def _unknown(first: Subject, other: Subject) -> str:
    bare = [s.name for s in (first, other) if not s.code or not (s.code.commit or s.code.snapshot)]
    what = "nothing is known of the code of" if bare else "of one a commit, of one a snapshot:"
    return f"{what} {' and '.join(dict.fromkeys(bare or [first.name, other.name]))}"


async def _bundles(reading: Reading, bundles: tuple[str, str]) -> CodeDifference | None:
    """Return how the code in two versions' bundles differs; None when one holds none."""
    for bundle in bundles:
        if await reading.tree(bundle, BUNDLED) == {}:
            return None
    return await _trees(reading, bundles, prefix=BUNDLED)


async def _worktrees(ours: CodeSource, theirs: CodeSource, deadline: float) -> CodeDifference:
    if ours.diff == theirs.diff:
        cut = CUT_MARK in ours.diff
        return CodeDifference(
            note="the recorded differences from the commit are cut" if cut else ""
        )
    if not ours.diff:
        return CodeDifference(theirs.diff, cut=CUT_MARK in theirs.diff)
    diff, binary = await asyncio.to_thread(
        worktrees.difference, ours.diff, theirs.diff, deadline=deadline
    )
    return CodeDifference(diff, note=_left_out(binary, "binary"))


async def _trees(reading: Reading, artifacts: tuple[str, str], *, prefix: str) -> CodeDifference:
    if artifacts[0] == artifacts[1]:
        return CodeDifference()
    ours = await reading.tree(artifacts[0], prefix)
    theirs = await reading.tree(artifacts[1], prefix)
    if ours is None or theirs is None:
        return CodeDifference(note=f"a source has more than {TREE_FILES} files")
    renamed = _renames(ours, theirs)
    paths = sorted({*ours, *theirs}.difference(renamed))
    changed = [path for path in paths if ours.get(path) != theirs.get(path)]
    moved = {new: old for old, new in renamed.items() if old != new}
    parts, binary, large, size = [], [], [], 0
    for path in changed:
        if size > DIFF_BYTES:
            break
        old_path = moved.get(path, path)
        old, new = ours.get(old_path), theirs.get(path)
        contents = await _contents(reading, artifacts, (old_path, path), (old, new))
        if contents is None:
            large.append(path)
            continue
        texts = [patching.text_of(data) for data in contents]
        if texts[0] is None or texts[1] is None:
            binary.append(path)
            continue
        sides = (_side(old_path, old, prefix), _side(path, new, prefix))
        try:
            part = await asyncio.to_thread(_patch, sides, texts[0], texts[1], reading.deadline)
        except TooLongError:
            large.append(path)
            continue
        parts.append(part)
        size += len(part)
    notes = (_left_out(binary, "binary", prefix), _left_out(large, "too large", prefix))
    return _noted(CodeDifference("".join(parts)), *notes)


async def _contents(
    reading: Reading,
    artifacts: tuple[str, str],
    paths: tuple[str, str],
    entries: tuple[Entry | None, Entry | None],
) -> list[bytes] | None:
    """Return a file's bytes on both sides, none where it is not; None when they are too many."""
    if entries[0] and entries[1] and entries[0].sha256 == entries[1].sha256:
        return [b"", b""]
    found = await asyncio.gather(
        *(
            reading.file(artifact, path, entry)
            for artifact, path, entry in zip(artifacts, paths, entries, strict=True)
            if entry is not None
        )
    )
    known = [data for data in found if data is not None]
    if len(known) < len(found):
        return None
    return known if len(known) > 1 else [b"", *known] if entries[0] is None else [*known, b""]


def _patch(sides: tuple[Side | None, Side | None], before: str, after: str, deadline: float) -> str:
    body = "".join(
        patching.hunks(patching.lines_of(before), patching.lines_of(after), deadline=deadline)
    )
    return patching.header(*sides, changed=bool(body)) + body


def _side(path: str, entry: Entry | None, prefix: str) -> Side | None:
    return None if entry is None else Side(path.removeprefix(prefix), entry.executable)


def _renames(ours: Mapping[str, Entry], theirs: Mapping[str, Entry]) -> dict[str, str]:
    """Return what has only another path, from the old one to the new."""
    gone = {entry.sha256: path for path, entry in ours.items() if path not in theirs}
    return {
        gone.pop(entry.sha256): path
        for path, entry in sorted(theirs.items())
        if path not in ours and entry.size and entry.sha256 in gone
    }


def _left_out(paths: Sequence[str], why: str, prefix: str = "") -> str:
    if not paths:
        return ""
    named = ", ".join(path.removeprefix(prefix) for path in paths[:NAMED])
    more = f" and {len(paths) - NAMED} more" if len(paths) > NAMED else ""
    return f"left out, {why}: {named}{more}"


def _noted(difference: CodeDifference, *notes: str) -> CodeDifference:
    note = "; ".join(note for note in (difference.note, *notes) if note)
    return CodeDifference(difference.unified_diff, difference.cut, note)


def _cut(difference: CodeDifference, left: int) -> CodeDifference:
    """Cut a diff at the end of a line, if it is longer than allowed."""
    data = difference.unified_diff.encode()
    limit = min(DIFF_BYTES, max(left, 0))
    if len(data) <= limit:
        return difference
    kept = data[: data.rfind(b"\n", 0, limit) + 1].decode()
    return CodeDifference(kept, cut=True, note=difference.note)
