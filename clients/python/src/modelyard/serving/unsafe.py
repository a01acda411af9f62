"""The policy for formats that can hold code: pickles, and what is made of them.

`MODELYARD_SERVING_UNSAFE_FORMATS=refuse` (else `allow`) lets nothing be unpickled while a model
loads that names a class or a function: that is how a pickle runs code. Python itself tells of each
such name, whoever unpickles: a loader, joblib, numpy, torch or the model's own `load`.

It is about formats, not a sandbox: the code that a model class brings along runs.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections.abc import Iterator

from modelyard.bundle import BundleError

VARIABLE = "MODELYARD_SERVING_UNSAFE_FORMATS"
_ALLOW, _REFUSE = "allow", "refuse"
_EVENT = "pickle.find_class"


class _Guard:
    """What Python tells of; there is no way to stop it from telling."""

    def __init__(self) -> None:
        self.is_on = False
        self._is_installed = False
        self._installing = threading.Lock()

    def install(self) -> None:
        with self._installing:
            if not self._is_installed:
                sys.addaudithook(self._hear)
                self._is_installed = True

    def _hear(self, event: str, arguments: tuple[object, ...]) -> None:
        if event == _EVENT and self.is_on:
            name = ".".join(map(str, arguments))
            raise BundleError(f"a pickle asks for {name}, and {VARIABLE} is {_REFUSE}")


_guard = _Guard()


@contextlib.contextmanager
def policy() -> Iterator[None]:
    """Apply the policy while something loads.

    Raises:
        BundleError: The variable says neither, or something was unpickled against it.
    """
    said = os.environ.get(VARIABLE) or _ALLOW
    if said not in (_ALLOW, _REFUSE):
        raise BundleError(f"{VARIABLE} must be {_ALLOW} or {_REFUSE}")
    if said == _ALLOW:
        yield
        return
    _guard.install()
    _guard.is_on = True
    try:
        yield
    finally:
        _guard.is_on = False
