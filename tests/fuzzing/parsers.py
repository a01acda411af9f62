"""The parsers of what callers send, fuzzed by what they cover: `python -m tests.fuzzing.parsers`.

    uv run --group fuzzing python -m tests.fuzzing.parsers filter -max_total_time=120

Each takes the bytes, or refuses them with an error of its own; anything else that is raised, and
whatever takes twenty seconds, is a fault. What follows the parser's name goes to libFuzzer.
"""

from __future__ import annotations

import base64
import io
import json
import re
import sys
from collections.abc import Callable

import atheris

with atheris.instrument_imports(include=["services", "lark", "cronsim", "modelyard.cli"]):
    from modelyard.cli.sweeping import grid
    from modelyard.errors import InvalidArgumentError

    from services.artifact.formats.judging import judge
    from services.artifact.manifest import Manifest, sort_key
    from services.builder.automations import schedule
    from services.common import names
    from services.common.environments.lock import EnvironmentFailedError, check_lock
    from services.common.errors import ServiceError
    from services.common.listing import pagination
    from services.common.listing.filter_syntax import parse_filter, parse_order

KINDS = [kind for kind in vars(names).values() if isinstance(kind, type) and "parts" in vars(kind)]
FILES = ("model.safetensors", "weights.npy", "model.onnx", "state.pkl", "model.pt", "a.txt")
SCOPE = "q"
REFUSALS = (ServiceError, InvalidArgumentError, EnvironmentFailedError)


HEX = "0123456789abcdef" * 4
PATHS = [
    *(
        "a",
        "b",
        "a/b",
        "A",
        "..",
        ".",
        "/",
        "",
        "C:",
        "\\",
        "\0",
        "\n",
        "e\u0301",
        "\u00e9",
        "\u00df",
    ),
    *("ss", "\ufffd", "\U0001f600", "x" * 256, "d/" * 512),
]
IDS = [
    *("a", "a-1", "a" * 63, "a" * 64, "1", "0", "01", "9" * 19, str(2**63), "-", "..", "A", "\n"),
    *("\u0131", "\u0660", HEX, HEX.upper(), "", "a-", " a"),
]


def manifest(data: bytes) -> None:
    """A manifest that is taken is written as it was read."""
    dice = atheris.FuzzedDataProvider(data)
    entries = [
        {
            "mode": dice.PickValueInList([0o644, 0o755, 0o777, -1]),
            "path": dice.PickValueInList(PATHS) + dice.PickValueInList(PATHS),
            "sha256": dice.PickValueInList([HEX, HEX, HEX.upper(), HEX[1:]]),
            "size": dice.PickValueInList([0, 1, dice.ConsumeInt(8)]),
        }
        for _ in range(dice.ConsumeIntInRange(0, 4))
    ]
    if dice.ConsumeBool():
        entries.sort(key=lambda entry: sort_key(str(entry["path"])))
    text = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()
    if not dice.ConsumeBool():
        place = dice.ConsumeIntInRange(0, len(text))
        text = text[:place] + dice.ConsumeBytes(8) + text[place + dice.ConsumeIntInRange(0, 8) :]
    assert Manifest.parse(text).encode() == text


def name(data: bytes) -> None:
    """A name that is taken, of whichever kind, is written as it was read."""
    dice = atheris.FuzzedDataProvider(data)
    kind, other = dice.PickValueInList(KINDS), dice.PickValueInList(KINDS)
    pattern = (kind if dice.ConsumeBool() else other).pattern
    text = re.sub(r"\{\w+\}", lambda _: dice.PickValueInList(IDS), pattern)
    if dice.ConsumeBool():
        text += dice.ConsumeUnicode(4)
    assert str(kind.parse(text)) == text


def signed(purpose: str, decode: Callable[[str], object]) -> Callable[[bytes], None]:
    """Half of the tokens have a right checksum, so that what is in them is looked at, too."""

    def run(data: bytes) -> None:
        flag, body = data[:1], data[1:]
        if flag < b"\x80":
            body += pagination._checksum(purpose, SCOPE, body)
            text = base64.urlsafe_b64encode(body).decode().rstrip("=")
        else:
            text = body.decode("utf-8", "replace")
        decode(text)

    return run


def cron(text: str) -> None:
    """Expressions are refused by a ValueError, in words for people."""
    try:
        schedule.check(text, "Europe/Berlin")
    except ValueError as error:
        assert str(error).startswith(("must have", "is "))  # noqa: PT017


def file_format(data: bytes) -> None:
    """Whatever a file holds, something is found out about it."""
    path = FILES[data[0] % len(FILES)] if data else FILES[0]
    assert judge(path, len(data[1:]), io.BytesIO(data[1:])).format


def as_text(parse: Callable[[str], object]) -> Callable[[bytes], object]:
    """Give a parser of texts the bytes that are one."""
    return lambda data: parse(data.decode("utf-8", "replace"))


PARSERS: dict[str, Callable[[bytes], object]] = {
    "filter": as_text(parse_filter),
    "order": as_text(lambda text: parse_order(text, ["name", "metrics.*"])),
    "token": signed("page", lambda text: pagination.decode_token(text, SCOPE)),
    "cursor": signed("cursor", lambda text: pagination.decode_cursor(text, SCOPE)),
    "name": name,
    "manifest": manifest,
    "cron": as_text(cron),
    "sweep": as_text(lambda text: grid([text])),
    "lock": as_text(check_lock),
    "format": file_format,
}


def judged(parse: Callable[[bytes], object]) -> Callable[[bytes], None]:
    """Take a parser's own refusals for right."""

    def run(data: bytes) -> None:
        try:
            parse(data)
        except REFUSALS:
            return

    return run


def main() -> None:
    """Fuzz the parser that the command line names."""
    program, parser, *options = sys.argv
    atheris.Setup([program, "-timeout=20", *options], judged(PARSERS[parser]))
    atheris.Fuzz()


if __name__ == "__main__":
    main()
