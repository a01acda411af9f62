"""A pytest plugin, `-p tests.faults.sowing`: the tests have the bug that is named, if any."""

from __future__ import annotations

import os

from tests.faults import bugs

if "SEEDED_BUG" in os.environ:
    bugs.sow(os.environ["SEEDED_BUG"])
