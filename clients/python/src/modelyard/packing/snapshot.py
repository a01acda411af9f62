"""Source snapshots: the code that a bundle needs to load its model.

Of a build it is the whole source folder. Of a script it is the script and those modules beside it
that are loaded, so that a bundle made in a notebook's folder does not swallow the folder.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import shutil
import sys
import sysconfig
from collections.abc import Iterable
from pathlib import Path
from types import FrameType, ModuleType

from modelyard.bundle import BundleError

IGNORED = (".git", ".hg", ".venv", "venv", "node_modules", "__pycache__", "*.pyc", ".*_cache")
_INSTALLED = frozenset({"site-packages", "dist-packages"})
_GUARD = '`if __name__ == "__main__":`'


def copy_source(source: Path, into: Path) -> None:
    """Copy a source folder, without what tools put there."""
    shutil.copytree(source, into, ignore=shutil.ignore_patterns(*IGNORED), dirs_exist_ok=True)


def entry_of(model: object) -> str:
    """Return `module:Class` of a model as it will be found in its snapshot.

    Raises:
        BundleError: The class could not be found there, or not made without arguments.
    """
    kind = type(model)
    if "." in kind.__qualname__:
        raise BundleError(f"{kind.__qualname__} must be defined at the top of its module")
    check_constructible(kind)
    name = _script_module(_script()) if kind.__module__ == "__main__" else kind.__module__
    return f"{name}:{kind.__name__}"


def check_constructible(kind: type) -> None:
    """Raise BundleError unless the class can be made without arguments."""
    try:
        inspect.signature(kind).bind()
    except TypeError as error:
        raise BundleError(f"{kind.__name__}() must work without arguments: {error}") from None


def copy_modules(names: Iterable[str], into: Path) -> None:
    """Copy the named modules, and what is loaded from beside them, unless they are installed."""
    modules = [m for name in names if (m := sys.modules.get(name)) and _is_own(m)]
    roots = {_root_of(module) for module in modules}
    if any(module.__name__ == "__main__" for module in modules):
        _check_guarded(_script())
    for module in list(sys.modules.values()):
        if isinstance(module, ModuleType) and _is_own(module) and _root_of(module) in roots:
            origin = _origin(module)
            target = into / origin.relative_to(_root_of(module))
            if module.__name__ == "__main__":
                target = into / f"{_script_module(origin)}.py"
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(origin, target)


def _is_own(module: ModuleType) -> bool:
    """Say whether a module is the user's own file rather than installed or part of Python."""
    origin = getattr(module, "__file__", None)
    if module.__name__.partition(".")[0] == "modelyard" or not origin:
        return False
    # As it is written, not as it resolves: installers link files out of their caches.
    path = Path(origin).absolute()
    if path.suffix != ".py" or not _INSTALLED.isdisjoint(path.parts):
        return False
    stdlib = Path(sysconfig.get_paths()["stdlib"])
    return not any(p.is_relative_to(stdlib) for p in (path, path.resolve()))


def _origin(module: ModuleType) -> Path:
    return Path(str(module.__file__)).resolve()


def _root_of(module: ModuleType) -> Path:
    """Return the folder from which a module is imported."""
    origin = _origin(module)
    depth = module.__name__.count(".") + (origin.name == "__init__.py")
    return origin.parents[depth]


def _script() -> Path:
    started = getattr(importlib.import_module("__main__"), "__file__", None)
    if not started:
        raise BundleError("define the model class in a .py file and import it from there")
    return Path(started).resolve()


def _script_module(script: Path) -> str:
    """Return the name by which a script can be imported."""
    name = re.sub(r"\W", "_", script.stem)
    return f"_{name}" if name[:1].isdigit() else name


def _check_guarded(script: Path) -> None:
    """Refuse a script that would train again whenever its model is loaded."""
    frame = inspect.currentframe()
    main = importlib.import_module("__main__")
    while frame and not (frame.f_code.co_name == "<module>" and frame.f_globals is vars(main)):
        frame = frame.f_back
    if frame is not None and not _is_guarded(script, frame):
        raise BundleError(
            f"{script.name} defines the model's class and is imported to load it: put what it "
            f"runs (line {frame.f_lineno}) under {_GUARD}"
        )


def _is_guarded(script: Path, frame: FrameType) -> bool:
    line = frame.f_lineno
    return any(
        isinstance(node, ast.If)
        and "__name__" in ast.unparse(node.test)
        and node.lineno <= line <= (node.end_lineno or line)
        for node in ast.parse(script.read_text(encoding="utf-8")).body
    )
