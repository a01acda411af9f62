"""Pickles, bare or in an archive as PyTorch saves them: loading one runs what it names.

Their opcodes are listed, never carried out (`pickletools`).
"""

from __future__ import annotations

import io
import pickletools
import zipfile
from collections.abc import Iterator
from typing import BinaryIO

from services.artifact.formats.domain import Finding, Verdict, unsafe, unverified
from services.artifact.formats.tensors import numpy_array

_SCANNED_BYTES = 4 * 1024 * 1024
_MEMBERS = 10_000
_NAMED = 8
_END, _END_BYTES = b"PK\x05\x06", 22
_CODES = frozenset(op.code for op in pickletools.opcodes)
_OLD_STARTS = (b"(", b"c", b"]", b"}", b"I", b"l", b"d")
_STRINGS = frozenset({"SHORT_BINUNICODE", "BINUNICODE", "UNICODE", "BINUNICODE8"})
_COMPRESSED = ((b"\x1f\x8b", "gzip"), (b"BZh", "bzip2"), (b"\xfd7zXZ", "xz"), (b"ZF", "joblib"))


def bare(path: str, size: int, head: bytes, file: BinaryIO) -> Finding | None:
    """Recognise a pickle by its opcodes."""
    is_new = head[:1] == b"\x80" and head[1:2] in b"\x02\x03\x04\x05"
    if not is_new and head[:1].decode("latin-1") not in _CODES:
        return None
    file.seek(0)
    data = file.read(_SCANNED_BYTES)
    if not is_new and not _is_old(data, is_whole=len(data) == size):
        return None
    names = list(_names(data))
    return unsafe("pickle", *(_told(names) or ("it names nothing, and can",)))


def _is_old(data: bytes, *, is_whole: bool) -> bool:
    """Say whether it is a pickle of the protocols 0 or 1, which have no magic number.

    It is one that comes to its end, or does not within what was read. Text may do so by chance:
    then it calls nothing.
    """
    calls = data[:1] in _OLD_STARTS
    try:
        for op, _, _ in pickletools.genops(io.BytesIO(data)):
            calls = calls or op.name in ("GLOBAL", "INST", "STACK_GLOBAL")
    except (ValueError, IndexError):
        return calls and not is_whole
    return calls


def _told(names: list[str]) -> tuple[str, ...]:
    unique = sorted(set(names))
    shown = tuple(f"calls {name}" for name in unique[:_NAMED])
    return (*shown, f"and {len(unique) - _NAMED} more") if len(unique) > _NAMED else shown


def _names(data: bytes) -> Iterator[str]:
    """Yield what a pickle would import, as far as it can be told."""
    strings: list[str] = []
    try:
        for op, argument, _ in pickletools.genops(io.BytesIO(data)):
            if op.name in _STRINGS:
                strings = [*strings[-1:], str(argument)]
            elif op.name in ("GLOBAL", "INST"):
                yield str(argument).replace(" ", ".")
            elif op.name == "STACK_GLOBAL":
                yield ".".join(strings) or "something made at run time"
    except (ValueError, IndexError, UnicodeDecodeError):
        return


def archives(path: str, size: int, head: bytes, file: BinaryIO) -> Finding | None:
    """Look into a zip archive: PyTorch's, NumPy's, Keras's or any other."""
    if not head.startswith(b"PK\x03\x04"):
        return None
    try:
        with zipfile.ZipFile(file) as archive:
            members = archive.infolist()
            if len(members) > _MEMBERS:
                return unverified("zip", f"it has more than {_MEMBERS} members")
            if not _ends(file, size, archive.comment):
                return unverified("zip", "more follows its end")
            findings = [_member(archive, member) for member in members if not member.is_dir()]
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


def _member(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> Finding:
    with archive.open(member) as stream:
        # However large a member says it is, no more of it is unpacked.
        data = stream.read(_SCANNED_BYTES)
    unpacked = io.BytesIO(data)
    for analyser in (bare, numpy_array):
        finding = analyser(member.filename, member.file_size, data, unpacked)
        if finding is not None:
            return finding
    return unverified("zip", f"{member.filename[:100]} may be anything")


def compressed(path: str, size: int, head: bytes, file: BinaryIO) -> Finding | None:
    """Recognise compressed files, which may hold anything."""
    return next(
        (unverified(name, "compressed") for magic, name in _COMPRESSED if head.startswith(magic)),
        None,
    )
