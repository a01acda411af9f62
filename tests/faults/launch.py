"""The services as `python -m services` runs them, with one thing wrong: for tests alone.

`CRASH_POINT=metadata.commit.after:2` kills the process where `points.py` says;
`SEEDED_BUG=no-fsync-of-files` spoils a function as `bugs.py` says.
"""

from __future__ import annotations

import os
from pathlib import Path

from services.__main__ import main
from tests.faults import bugs, points

CRASH_POINT, CRASH_SINCE, SEEDED_BUG = "CRASH_POINT", "CRASH_SINCE", "SEEDED_BUG"


def prepare() -> None:
    """Do to this process what its environment says."""
    name, _, hit = os.environ.get(CRASH_POINT, "").partition(":")
    if name:
        points.arm(name, int(hit), Path(os.environ[CRASH_SINCE]))
    # After the points: what a bug tears apart has a point in between.
    bug = os.environ.get(SEEDED_BUG, "")
    if bug:
        bugs.sow(bug)


if __name__ == "__main__":
    prepare()
    main()
