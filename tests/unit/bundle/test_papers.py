"""A model's card and licence: from its class, its card's front matter, its source's files."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import ClassVar

import modelyard
import pytest
from modelyard.bundle import CARD_FILE, CARD_LENGTH, BundleError, read
from modelyard.model import Model
from modelyard.packing.papers import Papers, of_source
from modelyard.packing.publish import write_bundle

from tests.unit.bundle.test_bundle import Doubler

APACHE = "\n                  Apache License\n                  Version 2.0, January\n"
OPEN = "---\nlicense: openrail++\n---\n"
MIT = "Copyright (c) 2026 Ada\n\nPermission is hereby granted, free of charge, to any person\n"


class Plain(Model):
    """A model that says nothing of itself."""


class Told(Model):
    """A model that says it all."""

    card: ClassVar[str | Path] = Path("docs/card.md")
    license: ClassVar[str] = "Proprietary"


@pytest.mark.parametrize(
    ("files", "papers"),
    [
        ({}, Papers()),
        ({"README.md": "# Churn\n"}, Papers("# Churn\n")),
        ({"README.md": "# Code\n", "MODEL_CARD.md": "# Model\n"}, Papers("# Model\n")),
        (
            {"README.md": "---\nlicense: apache-2.0\n---\n# Churn\n", "LICENSE": MIT},
            Papers("---\nlicense: apache-2.0\n---\n# Churn\n", "Apache-2.0"),
        ),
        ({"README.md": OPEN}, Papers(OPEN, "openrail++")),
        ({"LICENSE": MIT}, Papers(license="MIT")),
        ({"LICENSE.txt": APACHE}, Papers(license="Apache-2.0")),
        ({"COPYING": "\n House rules,\t3 \nNobody may.\n"}, Papers(license="House rules, 3")),
        ({"README.md": "bell\x07 and \x9b\n"}, Papers("bell and \n")),
    ],
)  # fmt: skip
def test_a_source_says_it_in_its_files(
    tmp_path: Path, files: dict[str, str], papers: Papers
) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    assert of_source(Plain(), tmp_path) == papers


def test_the_class_goes_before_the_files(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("# Code\n")
    (tmp_path / "LICENSE").write_text(MIT)
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs/card.md").write_text("# Card\n")
    assert of_source(Told(), tmp_path) == Papers("# Card\n", "Proprietary")
    (tmp_path / "docs/card.md").unlink()
    with pytest.raises(BundleError, match=r"card\.md"):
        of_source(Told(), tmp_path)


def test_a_card_has_a_bound(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("x" * (CARD_LENGTH + 1))
    with pytest.raises(BundleError, match="longer"):
        of_source(Plain(), tmp_path)


def test_a_bundle_carries_its_papers(tmp_path: Path) -> None:
    papers = Papers("# Doubler\n", "MIT")
    write_bundle(tmp_path / "bundle", Doubler(2.0), name="doubler", papers=papers)
    found = read(tmp_path / "bundle")
    assert Papers(found.card, found.license) == papers
    (tmp_path / "bundle" / CARD_FILE).write_text("x" * (CARD_LENGTH + 1))
    with pytest.raises(BundleError, match="longer"):
        read(tmp_path / "bundle")


def test_a_run_registers_what_the_module_does() -> None:
    ours = inspect.signature(modelyard.log_model).parameters
    of_run = dict(inspect.signature(modelyard.ActiveRun.log_model).parameters)
    del of_run["self"]
    assert {name: (p.kind, p.default, p.annotation) for name, p in of_run.items()} == {
        name: (p.kind, p.default, p.annotation) for name, p in ours.items()
    }
