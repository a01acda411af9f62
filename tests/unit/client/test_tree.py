from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest
import rfc8785
from modelyard._transfers.tree import Entry, check_paths, encode_manifest, list_files, tree_digest
from modelyard.errors import InvalidArgumentError

HARD_PATHS = [
    "a",
    "a/b c",
    'quote".txt',
    "é/ü",
    "日本/語",
    "\U0001f600",  # two UTF-16 units: sorts before the next one, unlike by code point
    "\uffee",
    "</script>",
    "Z",
    "\u2028",
]


def test_the_manifest_is_canonical_json() -> None:
    entries = [
        Entry(path, index % 2 == 0, index * 10**9, hashlib.sha256(path.encode()).hexdigest())
        for index, path in enumerate(HARD_PATHS)
    ]
    ordered = sorted(entries, key=lambda entry: entry.path.encode("utf-16-be"))
    wanted = rfc8785.dumps(
        [
            {
                "path": entry.path,
                "size": entry.size,
                "mode": 0o755 if entry.executable else 0o644,
                "sha256": entry.sha256,
            }
            for entry in ordered
        ]
    )
    assert encode_manifest(entries) == wanted
    assert tree_digest(entries) == hashlib.sha256(wanted).hexdigest()
    paths = [entry.path for entry in ordered]
    assert paths.index("\U0001f600") < paths.index("\uffee")


def test_files_are_listed_with_their_modes(tmp_path: Path) -> None:
    (tmp_path / "b/c").mkdir(parents=True)
    (tmp_path / "b/c/run.sh").write_text("#!")
    (tmp_path / "b/c/run.sh").chmod(0o700)
    (tmp_path / "a.txt").write_text("hello")
    found = list_files(tmp_path)
    assert [(file.path, file.executable, file.size) for file in found] == [
        ("a.txt", False, 5),
        ("b/c/run.sh", True, 2),
    ]


def test_one_file_is_a_tree_of_one(tmp_path: Path) -> None:
    (tmp_path / "model.pkl").write_text("x")
    assert [file.path for file in list_files(tmp_path / "model.pkl")] == ["model.pkl"]


def test_what_is_ignored_is_left_out(tmp_path: Path) -> None:
    for name in ("keep.py", "__pycache__/keep.pyc", "x/.git/config", "x/keep.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")
    found = list_files(tmp_path, ignore=["__pycache__", ".git"])
    assert [file.path for file in found] == ["keep.py", "x/keep.py"]


def _link(folder: Path) -> None:
    (folder / "link").symlink_to("/etc/passwd")


def _pipe(folder: Path) -> None:
    os.mkfifo(folder / "pipe")


def _newline(folder: Path) -> None:
    (folder / "a\nb").write_text("x")


def _backslash(folder: Path) -> None:
    (folder / "a\\b").write_text("x")


def _not_utf8(folder: Path) -> None:
    Path(os.fsdecode(os.fsencode(folder) + b"/\xff")).write_text("x")


def _not_nfc(folder: Path) -> None:
    (folder / "e\u0301").write_text("x")


def _case(folder: Path) -> None:
    (folder / "A").write_text("x")
    (folder / "a").write_text("x")


def test_a_device_is_refused_by_name() -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        list_files(Path(os.devnull))
    assert caught.value.metadata["path"] == os.devnull


@pytest.mark.parametrize("make", [_link, _pipe, _newline, _backslash, _not_utf8, _not_nfc, _case])
def test_what_no_tree_may_hold_is_refused_by_name(make: object, tmp_path: Path) -> None:
    assert callable(make)
    make(tmp_path)
    with pytest.raises(InvalidArgumentError) as caught:
        list_files(tmp_path)
    assert caught.value.reason == "INVALID_PATH"
    assert caught.value.metadata["path"]


@pytest.mark.parametrize(
    "paths",
    [
        ["/etc/passwd"],
        ["../x"],
        ["a/../../x"],
        ["a//b"],
        ["./a"],
        ["a/"],
        [""],
        ["a\x00b"],
        ["x" * 256],
        ["/".join(["y" * 200] * 6)],
        ["a", "a"],
        ["a", "a/b"],
        ["a/b", "a"],
        ["Dir/x", "dir/y"],
    ],
)
def test_paths_that_a_server_may_not_send(paths: list[str]) -> None:
    with pytest.raises(InvalidArgumentError):
        check_paths(paths)


def test_an_empty_folder_is_an_empty_tree(tmp_path: Path) -> None:
    (tmp_path / "folders/alone").mkdir(parents=True)
    assert list_files(tmp_path) == []
    assert encode_manifest([]) == b"[]"
