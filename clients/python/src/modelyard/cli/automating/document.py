"""A YAML file whose values know their lines: safe, and without YAML's surprises.

Plain `yes`, `no`, `on`, dates and times are text; `1e-3` is a number. There are no
anchors, no tags, and no key twice.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import yaml

from modelyard.errors import InvalidArgumentError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

T = TypeVar("T")

MAX_BYTES = 256 * 1024
MAX_DEPTH = 32
_KINDS = {str: "text", int: "a whole number", float: "a number", bool: "true or false"}


@dataclass(frozen=True, slots=True)
class Place:
    """Where something stands, to be said in front of what is wrong with it."""

    file: str
    line: int
    path: str = ""

    def refuse(self, problem: str) -> NoReturn:
        """Say what is wrong here.

        Raises:
            InvalidArgumentError: It does.
        """
        what = f"{self.path} " if self.path else ""
        message = f"{self.file}, line {self.line}: {what}{problem}"
        raise InvalidArgumentError(message, reason="INVALID_FIELD")


@dataclass(slots=True)
class Value:
    """A value and its place: text, a number, a truth value, None, a list or a `Section`."""

    place: Place
    data: Any

    def read(self, kind: type[T]) -> T:
        """Return it as a `str`, `int`, `float` or `bool`, or refuse it; an int is a float, too."""
        data = float(self.data) if kind is float and type(self.data) is int else self.data
        if type(data) is not kind:
            self.place.refuse(f"must be {_KINDS[kind]}")
        found: T = data
        return found

    def section(self) -> Section:
        """Return it as a mapping, or refuse it."""
        if not isinstance(self.data, Section):
            self.place.refuse("must be a mapping of keys and values")
        return self.data

    def items(self) -> list[Value]:
        """Return it as a list, or refuse it."""
        if not isinstance(self.data, list):
            self.place.refuse("must be a list")
        return self.data

    def plain(self) -> Any:
        """Return it without places."""
        if isinstance(self.data, Section):
            return {key: value.plain() for key, value in self.data.values.items()}
        if isinstance(self.data, list):
            return [value.plain() for value in self.data]
        return self.data


@dataclass(slots=True)
class Section:
    """A mapping whose keys are taken one by one; what is left over in the end is refused."""

    place: Place
    values: dict[str, Value]
    keys: dict[str, Place]
    known: list[str]

    def find(self, key: str) -> Value | None:
        """Return a key's value; None when it is not there."""
        self.known.append(key)
        found = self.values.get(key)
        return None if found is None or found.data is None else found

    def need(self, key: str) -> Value:
        """Return a key's value, or refuse the section."""
        found = self.find(key)
        if found is None:
            close = difflib.get_close_matches(key, self.values, 1)
            self.place.refuse(
                f"needs {key}" + (f"; is {close[0]} meant to be it?" if close else "")
            )
        return found

    def read(self, key: str, kind: type[T], default: T) -> T:
        """Return a key's value as Python has it, or the default."""
        found = self.find(key)
        return default if found is None else found.read(kind)

    def texts(self, key: str) -> dict[str, str]:
        """Return a key's value as a mapping of texts."""
        found = self.find(key)
        values = {} if found is None else found.section().values
        return {name: value.read(str) for name, value in values.items()}

    def list_of(self, key: str) -> list[str]:
        """Return a key's value as a list of texts."""
        found = self.find(key)
        return [] if found is None else [value.read(str) for value in found.items()]

    def close(self) -> None:
        """Refuse what nobody asked for."""
        for key, place in self.keys.items():
            if key not in self.known:
                close = difflib.get_close_matches(key, self.known, 1)
                hint = (
                    f"; did you mean {close[0]}?"
                    if close
                    else f"; known are {', '.join(self.known)}"
                )
                place.refuse(f"is unknown{hint}")


def text_of(path: Path) -> str:
    """Return a file's text.

    Raises:
        InvalidArgumentError: It is no UTF-8.
    """
    try:
        return path.read_text("utf-8")
    except UnicodeDecodeError:
        raise InvalidArgumentError(f"{path} is no UTF-8", reason="INVALID_FIELD") from None


def parse(text: str, file: str) -> Section:
    """Read a file's text.

    Raises:
        InvalidArgumentError: With the line of what is wrong.
    """
    if len(text.encode("utf-8", "surrogatepass")) > MAX_BYTES:
        Place(file, 1).refuse(f"the file has more than {MAX_BYTES} bytes")
    loader: Any = None
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        Place(file, mark.line + 1 if mark else 1).refuse(error.problem or "is no YAML")
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        Place(file, 1).refuse(str(error).splitlines()[0])
    finally:
        if loader is not None:
            loader.dispose()
    if node is None:
        Place(file, 1).refuse("the file is empty")
    return Value(Place(file, 1), _convert(node, file, "", 0)).section()


class _Loader(yaml.SafeLoader):
    """Reads nodes; without anchors, and with JSON's idea of what is no text."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012 - so in PyYAML

    def compose_node(self, parent: Any, index: Any) -> Any:
        event: Any = self.peek_event()  # type: ignore[no-untyped-call]
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            problem = "anchors and aliases are not taken"
            raise yaml.composer.ComposerError(None, None, problem, event.start_mark)
        return super().compose_node(parent, index)


_NUMBER = r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?"
for _tag, _pattern, _first in (
    ("null", r"~|null|", ["~", "n", ""]),
    ("bool", r"true|false", list("tf")),
    ("int", r"[-+]?[0-9]+", list("-+0123456789")),
    ("float", rf"{_NUMBER}|[-+]?\.inf|\.nan", list("-+.0123456789")),
):
    _Loader.add_implicit_resolver(
        f"tag:yaml.org,2002:{_tag}", re.compile(rf"(?:{_pattern})\Z"), _first
    )


def _convert(node: Any, file: str, path: str, depth: int) -> Any:
    place = Place(file, node.start_mark.line + 1, path)
    if depth > MAX_DEPTH:
        place.refuse(f"is nested more than {MAX_DEPTH} deep")
    if isinstance(node, yaml.MappingNode):
        return _section(node, place, depth)
    if isinstance(node, yaml.SequenceNode):
        return [
            Value(
                Place(file, item.start_mark.line + 1, f"{path}[{number}]"),
                _convert(item, file, f"{path}[{number}]", depth + 1),
            )
            for number, item in enumerate(node.value)
        ]
    return _scalar(node, place)


def _section(node: Any, place: Place, depth: int) -> Section:
    section = Section(place, {}, {}, [])
    for key_node, value_node in node.value:
        line = key_node.start_mark.line + 1
        if not isinstance(key_node, yaml.ScalarNode):
            Place(place.file, line, place.path).refuse("has a key that is no text")
        key = key_node.value
        path = f"{place.path}.{key}" if place.path else key
        own = Place(place.file, line, path)
        if key in section.values:
            own.refuse("is there twice")
        section.keys[key] = own
        section.values[key] = Value(own, _convert(value_node, place.file, path, depth + 1))
    return section


def _scalar(node: Any, place: Place) -> Any:
    text = str(node.value)
    match node.tag.rpartition(":")[2]:
        case "null":
            return None
        case "bool":
            return text == "true"
        case "int" if len(text) < 20:
            return int(text)
        case "int" | "float":
            return float(text.replace(".inf", "inf").replace(".nan", "nan"))
        case "str":
            return text
    return place.refuse(f"has a tag, {node.tag}; none is taken")


def entries(section: Section) -> Iterator[tuple[str, Value]]:
    """Yield the keys of a section whose keys are the writer's own."""
    section.known.extend(section.values)
    yield from section.values.items()
