"""Masking: however a secret is printed, and wherever the output is cut."""

from __future__ import annotations

import base64
import json
from urllib.parse import quote

import pytest

from services.builder.worker.lines import Line, read_lines
from services.builder.worker.masking import MASK, Mask

SECRET = 'p@ss "word"/ü+1'
KEY = "-----BEGIN KEY-----\nMIIEvQIBADANBg\n{\nkqhkiG9w0BAQEF\n-----END KEY-----\n"


class Chunks:
    """Output that arrives in pieces."""

    def __init__(self, data: bytes, size: int) -> None:
        self.pieces = [data[start : start + size] for start in range(0, len(data), size)]

    async def read(self, _: int, /) -> bytes:
        return self.pieces.pop(0) if self.pieces else b""


async def lines(data: bytes, size: int, *values: str) -> list[str]:
    found: list[str] = []

    async def take(line: Line) -> None:
        found.append(line.text)

    await read_lines(Mask(values).over(Chunks(data, size)), take)
    return found


@pytest.mark.parametrize("prefix", ["", "a", "ab"])
def test_a_value_is_masked_however_it_is_written(prefix: str) -> None:
    mask = Mask([SECRET])
    encoded = base64.b64encode(f"{prefix}{SECRET}xyz".encode()).decode()
    for printed in (SECRET, json.dumps(SECRET), repr(SECRET), quote(SECRET), encoded):
        masked = mask.text(f"before {printed} after")
        assert masked.startswith("before ")
        assert masked.endswith(" after")
        assert MASK in masked
        assert SECRET not in masked
    core = mask.text(encoded).replace(MASK, "")
    assert len(core) <= len(encoded) - len(SECRET)
    assert mask.text(SECRET.encode().hex()) == MASK


def test_each_line_of_a_value_is_masked_but_no_single_brace() -> None:
    masked = Mask([KEY]).text(f"{KEY}kept {{ and END")
    assert masked == f"{MASK}\n{MASK}\n{{\n{MASK}\n{MASK}\nkept {{ and END"
    assert Mask([KEY]).text(json.dumps({"key": KEY})).count("\\n") <= 1
    assert "MIIE" not in Mask([KEY]).text(repr(KEY))


@pytest.mark.parametrize("size", [1, 3, 7, 4_096])
async def test_no_cut_of_the_output_shows_a_part_of_a_value(size: int) -> None:
    data = f'p@ss p@s\n{"x" * 16_380}{SECRET}{SECRET}\rlast p@ss "word"\n{SECRET[:-1]}'
    found = await lines(data.encode(), size, SECRET)
    assert found[0] == "p@ss p@s"
    assert "word" not in "".join(found[1:-2])
    assert found[-1] == SECRET[:-1]


async def test_without_secrets_nothing_is_touched() -> None:
    stream = Chunks(b"a\nb", 2)
    assert Mask().over(stream) is stream
    assert Mask().text("x") == "x"
    assert await lines(b"a\nb", 1) == ["a", "b"]
