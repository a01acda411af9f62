"""Profiles of data: what is in each column, small, and such that profiles of parts can be merged.

Needs `pip install 'modelyard[data]'`. Figures are exact but for these, which come from Apache
DataSketches: quantiles (rank error 0.6 % with 99 % confidence), how many different values
there are beyond 1,000 (2.4 % of it), and counts of the most frequent ones beyond 1,000 (0.4 %
of all values).
"""

from __future__ import annotations

from modelyard.profiling.describing import profile
from modelyard.profiling.merging import merge
from modelyard.profiling.profiles import DatasetProfile

__all__ = ["DatasetProfile", "merge", "profile"]
