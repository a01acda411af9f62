"""Labels of versions sort as Semantic Versioning says, and others after them."""

from __future__ import annotations

import random

from services.metadata.models.labels import is_semantic, label_rank

# Chapter 11 of Semantic Versioning, and what lies around it.
RISING = [
    "0.0.0",
    "0.0.9",
    "0.9.10",
    "1.0.0-0",
    "1.0.0-9",
    "1.0.0-10",
    "1.0.0--",
    "1.0.0-A",
    "1.0.0-alpha",
    "1.0.0-alpha.1",
    "1.0.0-alpha.beta",
    "1.0.0-alpha1",
    "1.0.0-beta",
    "1.0.0-beta.2",
    "1.0.0-beta.11",
    "1.0.0-rc.1",
    "1.0.0",
    "1.0.1",
    "1.2.0",
    "1.10.0",
    "2.0.0",
    f"{'9' * 100}.0.0",
    "1.0",
    "1.0.0.0",
    "1.0.01",
    "first",
    "v1.0.0",
    "été",
]


def test_ranks_rise_as_labels_do() -> None:
    shuffled = random.Random(7).sample(RISING, len(RISING))  # noqa: S311  # no secret
    assert sorted(shuffled, key=lambda label: label_rank(label) or "") == RISING
    assert len({label_rank(label) for label in RISING}) == len(RISING)


def test_build_metadata_does_not_count() -> None:
    assert label_rank("1.0.0+a") == label_rank("1.0.0+b") == label_rank("1.0.0")
    assert (label_rank(""), is_semantic("1.0.0-rc.1+x"), is_semantic("1.٢.3")) == (
        None,
        True,
        False,
    )


def test_ranks_need_no_collation() -> None:
    for label in RISING:
        assert set(label_rank(label) or "") <= set("0123456789abcdef")
