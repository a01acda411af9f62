"""Benchmarks: one command a group, each bar a ratio or a limit measured in one run.

`uv run python -m benchmarks.suite [--quick]` prints one JSON line a bar and exits
with 0 only if all hold. Targets are in `targets.py`; figures belong to the run
that prints them.
"""
