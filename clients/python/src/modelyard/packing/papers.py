"""A model's papers: its card and its licence, as the class or the source folder has them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from modelyard.bundle import CARD_LENGTH, BundleError
from modelyard.model import Model

CARD_FILES = ("MODEL_CARD.md", "README.md")
LICENSE_FILES = ("LICENSE", "LICENSE.txt", "LICENSE.md", "COPYING")
LICENSE_LENGTH = 128
_FRONT_MATTER = re.compile(r"\A---\n(?P<fields>.*?\n)---\n", re.DOTALL)
_LICENSE_FIELD = re.compile(r"^license:[ \t]*['\"]?(?P<license>[\w.+-]+)", re.MULTILINE)
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
# By which words a licence's text is known, the longer names first.
_TITLES = {
    "AGPL-3.0": r"GNU AFFERO GENERAL PUBLIC LICENSE\s+Version 3",
    "LGPL-3.0": r"GNU LESSER GENERAL PUBLIC LICENSE\s+Version 3",
    "GPL-3.0": r"GNU GENERAL PUBLIC LICENSE\s+Version 3",
    "GPL-2.0": r"GNU GENERAL PUBLIC LICENSE\s+Version 2",
    "Apache-2.0": r"Apache License,?\s+Version 2\.0",
    "MPL-2.0": r"Mozilla Public License,?\s+Version 2\.0",
    "BSD-3-Clause": r"BSD 3-Clause|Neither the name of .{,200}? nor the names of",
    "BSD-2-Clause": r"BSD 2-Clause|Redistributions in binary form must reproduce",
    "CC0-1.0": r"CC0 1\.0 Universal",
    "CC-BY-4.0": r"Creative Commons Attribution 4\.0",
    "MIT": r"MIT License|Permission is hereby granted, free of charge",
    "ISC": r"ISC License|Permission to use, copy, modify, and/or distribute",
    "Unlicense": r"This is free and unencumbered software",
}


@dataclass(frozen=True, slots=True)
class Papers:
    """A model's card, Markdown, and its licence's short name; either may be empty."""

    card: str = ""
    license: str = ""


def of_model(model: Model, folder: Path) -> Papers:
    """Return what a model's class says; a card that is a `Path` lies in or below a folder.

    Raises:
        BundleError: The card cannot be read, or is too long.
    """
    kind = type(model)
    if not isinstance(kind.card, str | Path) or not isinstance(kind.license, str):
        raise BundleError(f"{kind.__name__}.card is text or a Path, its license is text")
    card = kind.card
    text = _checked(card, "card") if isinstance(card, str) else _read(folder / card)
    return Papers(text, _short(kind.license))


def of_source(model: Model, source: Path) -> Papers:
    """Return what a model's class says, else what the files of its source folder say.

    Raises:
        BundleError: The card cannot be read, or is too long.
    """
    said = of_model(model, source)
    card = said.card or next((_read(path) for path in _present(source, CARD_FILES)), "")
    return Papers(card, said.license or _license_of(card) or _license_in(source))


def _license_of(card: str) -> str:
    """Return the licence that a card's front matter names."""
    front = _FRONT_MATTER.match(card.replace("\r\n", "\n"))
    found = _LICENSE_FIELD.search(front["fields"]) if front else None
    if found is None:
        return ""
    known = {name.lower(): name for name in _TITLES}
    return _short(known.get(found["license"].lower(), found["license"]))


def _license_in(source: Path) -> str:
    """Return the licence whose text a source folder holds; an unknown one by its first line."""
    for path in _present(source, LICENSE_FILES):
        text = path.read_text(encoding="utf-8-sig", errors="replace")
        for name, title in _TITLES.items():
            if re.search(title, text, re.IGNORECASE | re.DOTALL):
                return name
        return _short(next((line for line in text.splitlines() if line.strip()), ""))
    return ""


def _present(source: Path, names: tuple[str, ...]) -> list[Path]:
    return [path for name in names if (path := source / name).is_file()]


def _read(path: Path) -> str:
    try:
        text = path.read_text(encoding="utf-8-sig", errors="replace")
    except OSError as error:
        raise BundleError(f"the model card cannot be read: {error}") from None
    return _checked(text, path.name)


def _checked(text: str, what: str) -> str:
    if len(text) > CARD_LENGTH:
        raise BundleError(f"{what} is longer than the {CARD_LENGTH} characters of a model card")
    return _CONTROL.sub("", text)


def _short(text: str) -> str:
    return " ".join(_CONTROL.sub("", text).split())[:LICENSE_LENGTH]
