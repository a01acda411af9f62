"""The source's own tests."""

from pathlib import Path

from model import Tiny


def test_the_example_has_two_rows() -> None:
    assert len(Tiny.example["x"]) == 2


def test_that_can_be_made_to_fail() -> None:
    assert not Path(__file__).with_name("FAIL").exists()
