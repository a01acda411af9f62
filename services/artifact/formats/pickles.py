"""Pickles, bare or in an archive as PyTorch saves them: loading one runs what it names.

Their opcodes are listed, never carried out (`pickletools`).
"""

from __future__ import annotations

import io
import pickletools
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Any, BinaryIO, cast

from services.artifact.formats.domain import Finding, Verdict, unsafe, unverified
from services.artifact.formats.tensors import numpy_array

_SCANNED_BYTES = 4 * 1024 * 1024
_HEAD_BYTES = 16 * 1024
_OPCODES = 250_000
_UNPACKED_BYTES = 64 * 1024 * 1024
_MEMBERS = 10_000
_USUAL = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_NAMED = 8
_END, _END_BYTES = b"PK\x05\x06", 22
_CODES = frozenset(op.code for op in pickletools.opcodes)
_OLD_STARTS = (b"(", b"c", b"]", b"}", b"I", b"l", b"d")
_STRINGS = frozenset({"SHORT_BINUNICODE", "BINUNICODE", "UNICODE", "BINUNICODE8"})
_COMPRESSED = ((b"\x1f\x8b", "gzip"), (b"BZh", "bzip2"), (b"\xfd7zXZ", "xz"), (b"ZF", "joblib"))


class _TooMuchError(Exception):
    """A file takes more work to look through than it is worth."""


@dataclass(slots=True)
class _Effort:
    """How much more of a file is looked at: some are made to take for ever."""

    opcodes: int = _OPCODES
    unpacked_bytes: int = _UNPACKED_BYTES

    def list(self, data: bytes) -> Iterator[tuple[str, Any]]:
        """Yield the opcodes of a pickle, and their arguments.

        Raises:
            ValueError, IndexError, UnicodeDecodeError: it is none, or goes on after the data.
            _TooMuchError: it is long.
        """
        for op, argument, _ in pickletools.genops(io.BytesIO(data)):
            if not self.opcodes:
                raise _TooMuchError
            self.opcodes -= 1
            yield op.name, argument

    def read(self, stream: IO[bytes]) -> bytes:
        """Return as much of a member as its kind takes to be seen, more than its head of pickles.

        When the archive's share is used up, no more than heads are read.
        """
        head = stream.read(_HEAD_BYTES)
        if not _may_go_on(head):
            return head
        data = head + stream.read(min(_SCANNED_BYTES, self.unpacked_bytes) - len(head))
        self.unpacked_bytes = max(self.unpacked_bytes - len(data), _HEAD_BYTES)
        return data


def bare(path: str, size: int, head: bytes, file: BinaryIO) -> Finding | None:
    """Recognise a pickle by its opcodes."""
    if not _may_be(head):
        return None
    file.seek(0)
    return _pickle(size, file.read(_SCANNED_BYTES), _Effort())


def _may_be(head: bytes) -> bool:
    return _is_new(head) or head[:1].decode("latin-1") in _CODES


def _may_go_on(head: bytes) -> bool:
    """Say whether the beginning of a file is the beginning of a pickle, as far as it goes."""
    if not _may_be(head) or len(head) < _HEAD_BYTES:
        return False
    file = io.BytesIO(head)
    try:
        return all(op.name != "STOP" for op, _, _ in pickletools.genops(file))
    except ValueError:
        return file.tell() == len(head)


def _is_new(head: bytes) -> bool:
    return head[:1] == b"\x80" and head[1:2] in b"\x02\x03\x04\x05"


def _pickle(size: int, data: bytes, effort: _Effort) -> Finding | None:
    try:
        if not _is_new(data) and not _is_old(data, effort, is_whole=len(data) == size):
            return None
        names = list(_names(data, effort))
    except _TooMuchError:
        return unsafe("pickle", "it is too long to be looked through")
    return unsafe("pickle", *(_told(names) or ("it names nothing, and can",)))


def _is_old(data: bytes, effort: _Effort, *, is_whole: bool) -> bool:
    """Say whether it is a pickle of the protocols 0 or 1, which have no magic number.

    It is one that comes to its end, or does not within what was read. Text may do so by chance:
    then it calls nothing.
    """
    calls = data[:1] in _OLD_STARTS
    try:
        for op, _ in effort.list(data):
            calls = calls or op in ("GLOBAL", "INST", "STACK_GLOBAL")
    except (ValueError, IndexError):
        return calls and not is_whole
    return calls


def _told(names: list[str]) -> tuple[str, ...]:
    unique = sorted(set(names))
    shown = tuple(f"calls {name}" for name in unique[:_NAMED])
    return (*shown, f"and {len(unique) - _NAMED} more") if len(unique) > _NAMED else shown


def _names(data: bytes, effort: _Effort) -> Iterator[str]:
    """Yield what a pickle would import, as far as it can be told."""
    strings: list[str] = []
    try:
        for op, argument in effort.list(data):
            if op in _STRINGS:
                strings = [*strings[-1:], str(argument)]
            elif op in ("GLOBAL", "INST"):
                yield str(argument).replace(" ", ".")
            elif op == "STACK_GLOBAL":
                yield ".".join(strings) or "something made at run time"
    except (ValueError, IndexError, UnicodeDecodeError):
        return


def archives(path: str, size: int, head: bytes, file: BinaryIO) -> Finding | None:
    """Look into a zip archive: PyTorch's, NumPy's, Keras's or any other."""
    if not head.startswith(b"PK\x03\x04"):
        return None
    try:
        with zipfile.ZipFile(cast("BinaryIO", _Sparing(file))) as archive:
            if not _ends(file, size, archive.comment):
                return unverified("zip", "more follows its end")
            findings = _members(archive)
    except _TooMuchError:
        return unverified("zip", "it is too much to be looked through")
    except (zipfile.BadZipFile, ValueError, NotImplementedError, RuntimeError, OSError) as error:
        return unverified("zip", f"it cannot be read: {type(error).__name__}")
    worst = max(findings, key=lambda finding: finding.verdict, default=None)
    if worst is None or worst.verdict is Verdict.UNVERIFIED:
        return unverified("zip", *(worst.reasons if worst else ("it is empty",)))
    return Finding(f"zip of {worst.format}", worst.verdict, worst.reasons)


def _ends(file: BinaryIO, size: int, comment: bytes) -> bool:
    """Say whether an archive's last record is the last of the file."""
    file.seek(max(size - _END_BYTES - len(comment), 0))
    return file.read(len(_END)) == _END


def is_archive(file: BinaryIO) -> bool:
    """Say whether a file, whatever it begins with, can be opened as a zip archive."""
    return zipfile.is_zipfile(file)


class _Sparing:
    """A file of which little is read at a time: a long list of members is refused, not kept."""

    def __init__(self, file: BinaryIO) -> None:
        self.seek, self.tell, self.seekable = file.seek, file.tell, file.seekable
        self._file = file

    def read(self, count: int = -1) -> bytes:
        if count > _SCANNED_BYTES:
            raise _TooMuchError
        return self._file.read(count)


def _members(archive: zipfile.ZipFile) -> list[Finding]:
    members = archive.infolist()
    if len(members) > _MEMBERS:
        raise _TooMuchError
    effort = _Effort()
    return [_member(archive, member, effort) for member in members if not member.is_dir()]


def _member(archive: zipfile.ZipFile, member: zipfile.ZipInfo, effort: _Effort) -> Finding:
    if member.compress_type not in _USUAL:
        return unverified("zip", f"{member.filename[:100]} is compressed in an unusual way")
    with archive.open(member) as stream:
        # However large a member says it is, no more of it is unpacked.
        data = effort.read(stream)
    finding = _pickle(member.file_size, data, effort) if _may_be(data) else None
    finding = finding or numpy_array(member.filename, member.file_size, data, io.BytesIO(data))
    return finding or unverified("zip", f"{member.filename[:100]} may be anything")


def compressed(path: str, size: int, head: bytes, file: BinaryIO) -> Finding | None:
    """Recognise compressed files, which may hold anything."""
    return next(
        (unverified(name, "compressed") for magic, name in _COMPRESSED if head.startswith(magic)),
        None,
    )
