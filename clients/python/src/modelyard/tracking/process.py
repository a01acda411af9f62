"""What is known of this process without looking around: kept light, start_run uses it."""

from __future__ import annotations

import sys
from pathlib import Path


def entry_point_of_process() -> str:
    """Return what was started, such as `train.py`, relative to the working directory."""
    main = sys.modules.get("__main__")
    started = getattr(main, "__file__", None)
    if not started:
        return ""
    path = Path(started).absolute()
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)
