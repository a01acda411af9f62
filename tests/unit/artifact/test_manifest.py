from __future__ import annotations

import hashlib
import unicodedata

import pytest

from services.artifact.manifest import Manifest, ManifestEntry, check_paths
from services.common.errors import Reason, ServiceError

SHA = hashlib.sha256(b"x").hexdigest()


def entry(path: str, *, mode: int = 0o644, size: int = 1) -> ManifestEntry:
    return ManifestEntry(mode=mode, path=path, sha256=SHA, size=size)


def test_known_digest() -> None:
    """Pin the digest of one tree: every client in every language must compute the same."""
    manifest = Manifest((entry("b"), entry("a", mode=0o755, size=2**53 - 1)))
    assert manifest.encode() == (
        b'[{"mode":493,"path":"a","sha256":"' + SHA.encode() + b'","size":9007199254740991},'
        b'{"mode":420,"path":"b","sha256":"' + SHA.encode() + b'","size":1}]'
    )
    digest = hashlib.sha256(manifest.encode()).hexdigest()
    assert digest == "52abdca3b09685e089adc103f22b4b961faaac9b261be858ac2c0d1b9d18c8e0"


def test_parse_returns_what_was_encoded() -> None:
    paths = ["a/b/c", "a/b/d", 'quote"d', "日本", "😀", "\uff5e", "e" * 255, " space "]
    manifest = Manifest(tuple(entry(path) for path in paths))
    parsed = Manifest.parse(manifest.encode())
    assert {found.path for found in parsed.entries} == set(paths)
    assert parsed.encode() == manifest.encode()
    assert parsed == Manifest.load(manifest.encode())
    assert all(parsed.find(path) == entry(path) for path in paths)
    assert parsed.find("a/b") is None


def test_pages_meet_without_gap() -> None:
    manifest = Manifest.parse(Manifest(tuple(entry(f"{n:02}/f") for n in range(30))).encode())
    found: list[str] = []
    while page := manifest.page(prefix="1", after=found[-1] if found else None, limit=3):
        found += [item.path for item in page]
    assert found == [f"{n}/f" for n in range(10, 20)]


@pytest.mark.parametrize(
    "paths", [["a", "b"], ["a/b", "a/c"], ["ab", "a/b"], ["a.b", "a/b"], ["ß", "s"], []]
)
def test_paths_that_fit_in_one_tree(paths: list[str]) -> None:
    check_paths(paths)


@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize(
    "paths",
    [
        ["a", "a/b"],
        ["a", "A"],
        ["A/x", "a/y"],
        ["A", "a/y"],
        ["a", "a"],
        ["ß", "SS"],
        [unicodedata.normalize("NFC", "É"), "é"],
    ],
)
def test_paths_that_do_not(paths: list[str], order: int) -> None:
    with pytest.raises(ServiceError) as caught:
        check_paths(paths[::order])
    assert caught.value.reason is Reason.INVALID_PATH
