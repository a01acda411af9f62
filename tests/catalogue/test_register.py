"""The catalogue is thought of whole: each case has a test that exists, or a reason why none can."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

from tests.catalogue.register import COUNTS, HELD, NOT_APPLICABLE

TESTS = Path(__file__).resolve().parents[1]


@cache
def names_in(file: str) -> set[str]:
    tree = ast.parse((TESTS / file).read_text())
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    return {node.name for node in tree.body if isinstance(node, kinds)}


def test_every_case_has_its_test_or_a_reason() -> None:
    cases = {f"{group}{number:02}" for group, n in COUNTS.items() for number in range(1, n + 1)}
    assert len(cases) == 97
    assert set(HELD) | set(NOT_APPLICABLE) == cases
    assert not set(HELD) & set(NOT_APPLICABLE)
    named = {(case, *test.split("::")) for case, tests in HELD.items() for test in tests}
    assert {one for one in named if one[2] not in names_in(one[1])} == set()
