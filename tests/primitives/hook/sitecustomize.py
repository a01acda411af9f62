"""Writes down what services make Python do; loaded at the start of whoever has it on PYTHONPATH.

Python tells of code that is run, programs that are started, connections and files. Each is charged
to the innermost frame of the services' or the tests' own; only the services' count. What is new is
appended to the file that `PRIMITIVES_FILE` names, as JSON: event, whose, by way of what, to what.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = f"{Path(__file__).parents[3]}/"
SERVICES, TESTS, CLIENT = f"{ROOT}services/", f"{ROOT}tests/", f"{ROOT}clients/python/src/"
LIBRARIES = ("site-packages/", f"/lib/python{sys.version_info[0]}.{sys.version_info[1]}/")
IMPORTING = "<frozen importlib"
TEMPORARY = (f"{tempfile.gettempdir()}/", "/dev/", "/proc/self/")
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
LOCAL = ("127.", "::1", "localhost")

_seen: set[tuple[str, ...]] = set()
_is_service = any(word.startswith("services") for word in sys.orig_argv)


def _place(path: Any) -> str | None:
    """Return where a path lies; None: where the tests keep everything, or in a folder that is."""
    if not isinstance(path, str | bytes | os.PathLike):
        return None
    text = str(Path(os.fsdecode(path)).absolute())
    if text.startswith(ROOT):  # which may lie among temporary folders itself
        return text.removeprefix(ROOT)
    return None if text.startswith(TEMPORARY) else text


def _written(path: Any, _mode: Any, flags: int | None) -> str | None:
    return _place(path) if (flags or 0) & WRITES else None


def _changed(*arguments: Any) -> str | None:
    folder = arguments[-1]  # a descriptor, where the path is one in a folder that is held open
    if isinstance(folder, int) and folder >= 0:
        return None
    return next(filter(None, map(_place, arguments)), None)


def _connected(*arguments: Any) -> str:
    address = arguments[-1]
    if not isinstance(address, tuple):
        return f"unix:{_place(address) or ''}"
    return "loopback" if address[0].startswith(LOCAL) else str(address[0])


def _started(_executable: Any, arguments: Any, *_: Any) -> str:
    words = [arguments] if isinstance(arguments, str | bytes | os.PathLike) else arguments
    return Path(os.fsdecode(words[0])).name


def _compiled(source: Any, name: Any) -> str | None:
    return None if source is None else str(name)  # made of a tree: told when it is run


def _named(*arguments: Any) -> str:
    return ".".join(map(str, arguments))[:100]


def _nothing(*_: Any) -> str:
    return ""


CHANGES = ("rename", "remove", "link", "symlink", "mkdir", "rmdir", "chmod", "chown")
DETAILS: dict[str, Callable[..., str | None]] = {
    **dict.fromkeys(("exec", "marshal.loads", "code.__new__"), _nothing),
    **dict.fromkeys(("os.fork", "os.forkpty", "sqlite3.enable_load_extension"), _nothing),
    **dict.fromkeys(("os.system", "os.exec", "os.posix_spawn", "os.spawn", "pty.spawn"), _named),
    **dict.fromkeys(("shutil.unpack_archive", "sqlite3.load_extension", "ctypes.dlopen"), _named),
    "pickle.find_class": _named,
    "compile": _compiled,
    "subprocess.Popen": _started,
    "socket.connect": _connected,
    "socket.sendto": _connected,
    "open": _written,
    "sqlite3.connect": _place,
    "os.truncate": lambda path, _length: _place(path),
    **dict.fromkeys([f"os.{change}" for change in CHANGES], _changed),
    **dict.fromkeys(("shutil.rmtree", "shutil.move", "shutil.copyfile"), _changed),
    **dict.fromkeys(("tempfile.mkstemp", "tempfile.mkdtemp"), _changed),
}


def _short(frame: Any) -> str:
    """Name a frame's file and function, wherever they are installed."""
    path = frame.f_code.co_filename.replace(ROOT, "", 1)
    for mark in LIBRARIES:
        path = path.rpartition(mark)[2]
    return f"{path}:{frame.f_code.co_name}"


def _whose(frame: Any) -> str:
    """Return whose doing it is; empty: nobody's who counts."""
    client = ""
    while frame is not None:
        name = frame.f_code.co_filename
        if name.startswith(TESTS):
            return ""
        if name.startswith(SERVICES):
            return _short(frame)
        if name.startswith(IMPORTING):
            return "import"
        if not client and name.startswith(CLIENT):
            client = _short(frame)
        frame = frame.f_back
    return (client or "thread") if _is_service else ""


def watch(event: str, arguments: tuple[Any, ...]) -> None:
    """Take note of an event."""
    details = DETAILS.get(event)
    if details is None:
        return
    try:
        what = details(*arguments)
        frame: Any = sys._getframe().f_back  # None: before the program itself
        if what is None or frame is None or frame.f_code.co_filename.startswith(IMPORTING):
            return
        whose = _whose(frame)
        if whose:
            _write(event, whose, _short(frame), what)
    except Exception as error:  # told, and found: nothing may break what is watched
        _write("error", event, repr(error), "")


def _write(*line: str) -> None:
    if line not in _seen:
        _seen.add(line)
        os.write(_file, json.dumps(line).encode() + b"\n")


if "PRIMITIVES_FILE" in os.environ:
    _file = os.open(os.environ["PRIMITIVES_FILE"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    _write("start", "services" if _is_service else "others", "", "")
    sys.addaudithook(watch)
