"""Text: settings and tables of known kinds; code is code."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import BinaryIO

from services.artifact.formats.domain import Finding, allowed, unverified

_DATA = frozenset({".json", ".jsonl", ".csv", ".tsv", ".txt", ".md", ".toml", ".lock", ".ubj"})
_NAMES = frozenset({"LICENSE", "NOTICE", "README", "MLmodel"})
_CODE = frozenset({".py", ".pyx", ".ipynb", ".sh", ".js", ".r", ".jl", ".lua", ".so", ".dll"})


def text(path: str, size: int, head: bytes, file: BinaryIO) -> Finding | None:
    """Recognise text by its bytes, and what it is for by its name."""
    place = PurePosixPath(path)
    suffix = place.suffix.lower()
    if suffix in _CODE or head.startswith(b"#!"):
        return unverified("code", "it is code")
    if suffix in (".yaml", ".yml"):
        return unverified("YAML", "what its tags make depends on who loads it")
    if b"\0" in head or not (suffix in _DATA or place.name in _NAMES):
        return None
    try:
        head[: -4 if size > len(head) else None].decode()
    except UnicodeDecodeError:
        return None
    return allowed("text")
