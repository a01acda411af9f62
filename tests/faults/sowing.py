"""A pytest plugin, `-p tests.faults.sowing`: the services in the tests' process have a bug."""

from __future__ import annotations

import os

from tests.faults import bugs

bugs.sow(os.environ["SEEDED_BUG"])
