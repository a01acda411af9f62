"""Output becomes lines: whole however it arrives, cut when long, folded when printed over."""

from __future__ import annotations

import asyncio

import pytest

from services.builder.worker import lines as module
from services.builder.worker.lines import MAX_LINE_BYTES, Line, Lines, read_lines


def cut(data: bytes, size: int) -> list[str]:
    lines, found = Lines(), []
    for start in range(0, len(data), size):
        found += lines.feed(data[start : start + size])
    return [line.text for line in (*found, *lines.end())]


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_lines_are_the_same_however_they_arrive(size: int) -> None:
    data = b"one\r\n\ntwo\x1b[31m\nbar 1%\rbar 2%\r\rbar 3%\nback\r\nlast\xff\r"
    expected = ["one", "", "two\x1b[31m", "bar 3%", "back", "last\N{REPLACEMENT CHARACTER}"]
    assert cut(data, size) == expected


@pytest.mark.parametrize("size", [1000, MAX_LINE_BYTES, 10 * MAX_LINE_BYTES])
def test_long_lines_are_cut(size: int) -> None:
    found = cut(b"x" * (2 * MAX_LINE_BYTES + 5) + b"\nshort", size)
    assert [len(text) for text in found] == [MAX_LINE_BYTES, MAX_LINE_BYTES, 5, 5]


def test_what_is_printed_over_needs_no_memory() -> None:
    lines = Lines()
    for step in range(10_000):
        assert lines.feed(b"\rstep %d" % step) == []
        assert len(lines._rest) < 20
    assert lines.moving
    assert lines.progress() == Line("step 9999", progress=True)
    assert not lines.moving
    assert lines.feed(b"\ndone\n") == [Line("step 9999"), Line("done")]


async def test_a_bar_is_told_once_a_window_and_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WINDOW_SECONDS", 0.1)
    stream, found, last = asyncio.StreamReader(), [], asyncio.Event()

    async def take(line: Line) -> None:
        found.append(line)
        if line.text == "49 of 50":
            last.set()

    reading = asyncio.create_task(read_lines(stream, take))
    stream.feed_data(b"before\n")
    for step in range(50):
        stream.feed_data(b"\r%d of 50" % step)
        await asyncio.sleep(0.01)
    await last.wait()
    stream.feed_data(b"\nafter\n")
    stream.feed_eof()
    await reading
    assert found[0] == Line("before")
    assert found[-2:] == [Line("49 of 50"), Line("after")]
    states = found[1:-2]
    assert all(line.progress for line in states)
    assert 2 <= len(states) <= 10
    steps = [int(line.text.split()[0]) for line in states]
    assert steps == sorted(set(steps))
