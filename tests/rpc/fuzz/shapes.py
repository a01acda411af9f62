"""Requests made from their descriptors: some nearly right, some far from it, some mere bytes.

Names, tokens and cursors that services answered with are put into later requests, so that
what is asked is often about something that exists.
"""

from __future__ import annotations

import random
import re
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

DEPTH = 5
MAIN = frozenset({"name", "parent", "resource", *(c.removesuffix("s") for c in ("models", "runs"))})
KEPT = 60
LENGTHS = (0, 1, 1, 1, 2, 2, 3, 30, 300)
INTEGERS = (0, 0, 1, 1, 2, 3, 7, 50, 100, 1000, 1001, 65536, -1, -7)
NUMBERS = (0.0, 1.0, -0.0, 0.5, 100.0, -1.0, 1e308, 5e-324, float("nan"), float("inf"), -1e9)
SECONDS = (0, 1, 1_700_000_000, 2_000_000_000, -1, -62_135_596_801, 253_402_300_800, 2**62)
NANOS = (0, 0, 0, 1, 999_999_999, 2_000_000_000, -1)
WORDS = (
    *("churn", "main", "production", "loss", "f1", "x", "0", "1", "true", "-", "*"),
    *("", " ", "\0", "a\0b", "\u202ex", "\u200b", "é", "Ω" * 40, "\t\n", "'; DROP TABLE runs"),
    *("..", "../../etc/passwd", "/etc/passwd", "a/b", "a%2Fb", "C:\\x", "file:///etc/passwd"),
    *("$(id)", "`id`", "{{7*7}}", "%s%n", "a" * 63, "a" * 64, "A", "x" * 5_000, "-a", "a-"),
    *("http://127.0.0.1:1/x", "* * * * *", "61 * * * *", "@daily", "1e3", "NaN", "sha256:x"),
    *("0" * 64, "f" * 64, "user:fuzz", "1.2.3", "text/plain", "{}", "[" * 200, '{"a":' * 40),
)
FILTERS = (
    *('name = "x"', "state = READY", 'metrics["a"].max > 0.7', "tags.team = 'x'", "NOT a", "("),
    *('create_time > "2026-01-01T00:00:00Z"', "params.x : *", 'a = "x" OR 1=1 --', "a AND", "a:b"),
    *(
        "NOT " * 40 + "a = 1",
        "(" * 400,
        'description : "%_\\"',
        "metrics.f1.max > 1e999",
        "a.b.c = 1",
    ),
    *("version = 99999999999999999999", 'time > "0000-00-00T00:00:00Z"', "type = ALIAS_MOVED"),
    *('model = "\\u0000"', "revision < 1", 'labels["a\'b"] = "c"', 'actor = "x"', "x" * 5_000),
)
ORDERS = (
    "name",
    "create_time desc",
    "metrics.f1 desc",
    "1;select",
    "a,a",
    "id asc",
    ",",
    "sequence",
)
COLLECTIONS = (
    *("projects", "models", "versions", "runs", "aliases", "datasets", "artifacts", "builds"),
    *("environments", "deployments", "automations", "executions", "webhooks", "tokens"),
    *("secrets", "members", "evaluations"),
)
_NAME = re.compile(r"projects/[^ ]+|tokens/[^ ]+")


class Shapes:
    """Makes requests; `dice` decides everything."""

    def __init__(self, dice: random.Random, own: str = "") -> None:
        self.dice = dice
        self._own = own
        self._share = 0.5
        self._known: dict[str, list[str]] = defaultdict(list)

    def learn(self, message: Message) -> None:
        """Remember the names and tokens in an answer."""
        for field, value in message.ListFields():
            values = value if field.is_repeated else [value]
            if field.message_type and field.message_type.GetOptions().map_entry:
                continue
            for one in list(values)[:5]:
                if isinstance(one, Message):
                    self.learn(one)
                elif isinstance(one, str) and one:
                    self._remember(field.name, one)

    def request(self, kind: type[Message]) -> bytes:
        """Return a request's bytes."""
        message = kind()
        right = self.dice.choice((1.0, 1.0, 0.97, 0.9, 0.5))
        self._share = self.dice.choice((0.15, 0.4, 0.8))
        self._fill(message, right=right, depth=0)
        if right == 1.0 and self.dice.random() < 0.2:
            self._poison(message)
        raw = message.SerializePartialToString()
        return self._spoilt(raw) if self.dice.random() < 0.05 else raw

    def _remember(self, field: str, text: str) -> None:
        if text == self._own or len(text) > 4_000:
            return
        kind = _kind_of(text) if _NAME.fullmatch(text) else field
        kept = self._known[kind]
        if text not in kept:
            kept.append(text)
            if len(kept) > KEPT:
                kept.pop(self.dice.randrange(KEPT))

    def _poison(self, message: Message) -> None:
        """Make one text of a good request what no database holds."""
        texts = list(_texts(message))
        if texts:
            holder, name = self.dice.choice(texts)
            setattr(holder, name, self.dice.choice(("a\0b", getattr(holder, name) + "\0")))

    def _spoilt(self, raw: bytes) -> bytes:
        held = bytearray(raw or b"\x0a\x01")
        for _ in range(self.dice.randint(1, 4)):
            held[self.dice.randrange(len(held))] = self.dice.randrange(256)
        return bytes(held[: self.dice.randint(1, len(held))])

    def _fill(self, message: Message, *, right: float, depth: int) -> None:
        name = message.DESCRIPTOR.full_name
        if name in {"google.protobuf.Timestamp", "google.protobuf.Duration"}:
            self._time(message, right)
            return
        for field in message.DESCRIPTOR.fields:
            if not self._is_wanted(field, depth):
                continue
            if field.message_type and field.message_type.GetOptions().map_entry:
                self._fill_map(getattr(message, field.name), field, right, depth)
            elif field.is_repeated:
                self._fill_list(getattr(message, field.name), field, right, depth)
            elif field.message_type:
                if depth < DEPTH:
                    inner = getattr(message, field.name)
                    inner.SetInParent()
                    self._fill(inner, right=right, depth=depth + 1)
            else:
                setattr(message, field.name, self._scalar(field, right))

    def _is_wanted(self, field: Any, depth: int) -> bool:
        """Say whether to fill a field: nearly always, if requests are mostly about it."""
        is_main = field.name in MAIN or (depth == 0 and field.name.endswith("_id"))
        return self.dice.random() < (0.95 if is_main else self._share)

    def _fill_map(self, entries: Any, field: Any, right: float, depth: int) -> None:
        key, value = (field.message_type.fields_by_name[part] for part in ("key", "value"))
        for _ in range(self._length(right)):
            made = self._scalar(key, right)
            if value.message_type is None:
                entries[made] = self._scalar(value, right)
            elif depth < DEPTH:
                self._fill(entries[made], right=right, depth=depth + 1)

    def _fill_list(self, items: Any, field: Any, right: float, depth: int) -> None:
        for _ in range(self._length(right)):
            if field.message_type is None:
                items.append(self._scalar(field, right))
            elif depth < DEPTH:
                self._fill(items.add(), right=right, depth=depth + 1)

    def _length(self, right: float) -> int:
        return self.dice.choice(LENGTHS[: 6 if self.dice.random() < right else None])

    def _time(self, message: Any, right: float) -> None:
        if self.dice.random() < right:
            is_moment = message.DESCRIPTOR.name == "Timestamp"
            message.seconds = self.dice.randint(1_700_000_000, 1_800_000_000) if is_moment else 1
        else:
            message.seconds, message.nanos = self.dice.choice(SECONDS), self.dice.choice(NANOS)

    def _scalar(self, field: Any, right: float) -> Any:
        is_right = self.dice.random() < right
        kinds: dict[int, Callable[[], Any]] = {
            FieldDescriptor.CPPTYPE_STRING: lambda: self._text_or_bytes(field, is_right),
            FieldDescriptor.CPPTYPE_BOOL: lambda: self.dice.random() < 0.5,
            FieldDescriptor.CPPTYPE_ENUM: lambda: self._enum(field, is_right),
            FieldDescriptor.CPPTYPE_DOUBLE: lambda: self.dice.choice(NUMBERS),
            FieldDescriptor.CPPTYPE_FLOAT: lambda: self.dice.choice(NUMBERS[:6]),
            FieldDescriptor.CPPTYPE_INT32: lambda: self._integer(31, -(2**31), is_right),
            FieldDescriptor.CPPTYPE_INT64: lambda: self._integer(63, -(2**63), is_right),
            FieldDescriptor.CPPTYPE_UINT32: lambda: self._integer(32, 0, is_right),
            FieldDescriptor.CPPTYPE_UINT64: lambda: self._integer(64, 0, is_right),
        }
        return kinds[field.cpp_type]()

    def _integer(self, bits: int, least: int, is_right: bool) -> int:
        if is_right:
            return self.dice.choice(INTEGERS[:8])
        return max(least, self.dice.choice((*INTEGERS, 2**bits - 1, least)))

    def _enum(self, field: Any, is_right: bool) -> int:
        numbers = [value.number for value in field.enum_type.values]
        return self.dice.choice(numbers) if is_right else self.dice.choice((0, 999, -1, 2**31 - 1))

    def _text_or_bytes(self, field: Any, is_right: bool) -> str | bytes:
        if field.type == FieldDescriptor.TYPE_BYTES:
            return self.dice.choice((b"", b"\0", b"x", self.dice.randbytes(32), bytes(3_000)))
        about = field.containing_type.name if field.containing_type else ""
        return self._text(field.name, about, is_right)

    def _text(self, name: str, about: str, is_right: bool) -> str:
        if name == "filter":
            return self.dice.choice(FILTERS)
        if name == "order_by":
            return self.dice.choice(ORDERS)
        if not is_right:
            everything = [text for texts in self._known.values() for text in texts]
            return self.dice.choice(
                (*WORDS, *self.dice.sample(everything, min(5, len(everything))))
            )
        if name == "request_id":
            return self.dice.choice((str(uuid.UUID(int=self.dice.getrandbits(128))), "", "r-1"))
        if name.endswith("_id"):
            return f"f{self.dice.randrange(40)}"
        known = self._known.get(_collection_of(name, about, self.dice)) or self._known.get(name)
        return self.dice.choice(known) if known else self.dice.choice(WORDS)


def _texts(message: Message) -> Iterator[tuple[Message, str]]:
    """Find all texts of a message that are single fields, with the messages that hold them."""
    for field, value in message.ListFields():
        is_map = field.message_type and field.message_type.GetOptions().map_entry
        if field.message_type and not is_map:
            for inner in value if field.is_repeated else [value]:
                yield from _texts(inner)
        elif field.type == FieldDescriptor.TYPE_STRING and not field.is_repeated:
            yield message, field.name


def _kind_of(name: str) -> str:
    parts = name.split("/")
    return parts[-2] if len(parts) > 1 else name


def _collection_of(field: str, about: str, dice: random.Random) -> str:
    """Guess which names a field of a message wants."""
    plural = f"{field}es" if field == "alias" else f"{field}s"
    if plural in COLLECTIONS:
        return plural
    if field == "parent":
        return dice.choice(("projects", "models", "environments", dice.choice(COLLECTIONS)))
    if field in {"name", "resource", "holder", "user"}:
        words = about.removesuffix("Request")
        named = [c for c in COLLECTIONS if words.endswith(c.removesuffix("s").title())]
        return dice.choice(named or COLLECTIONS)
    return field
