"""How labels of versions are ordered: semantic versions by their precedence, the rest by text.

A rank is text of digits and `a` to `f` alone, so every collation of every database
sorts it the same way. Semantic versions come first, by the precedence of Semantic
Versioning 2.0.0, chapter 11; build metadata does not count.
"""

from __future__ import annotations

from semver import Version

_SEMANTIC, _OTHER = "0", "1"
_PRE_RELEASE, _RELEASE = "0", "1"
_END, _NUMERIC, _ALPHANUMERIC = "0", "1", "2"


def label_rank(label: str) -> str | None:
    """Return the text that sorts a label among others; None for no label."""
    if not label:
        return None
    if not is_semantic(label):
        return _OTHER + label.encode().hex()
    version = Version.parse(label)
    core = "".join(_number(str(part)) for part in (version.major, version.minor, version.patch))
    if not version.prerelease:
        return _SEMANTIC + core + _RELEASE
    identifiers = "".join(_identifier(part) for part in version.prerelease.split("."))
    return _SEMANTIC + core + _PRE_RELEASE + identifiers + _END


def is_semantic(label: str) -> bool:
    """Say whether a label is a semantic version."""
    return label.isascii() and Version.is_valid(label)


def _identifier(text: str) -> str:
    """Rank an identifier: numbers below text, an ended list below one that goes on."""
    if text.isdecimal():
        return _NUMERIC + _number(text)
    return _ALPHANUMERIC + text.encode().hex() + "00"


def _number(digits: str) -> str:
    return f"{len(digits):03d}{digits}"
