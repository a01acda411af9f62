"""The frameworks lie in an environment of their own."""

from __future__ import annotations

import sys

from tests.environments import packages

# Last, so that whatever this environment has already is what is used.
sys.path.append(str(packages("frameworks")))
