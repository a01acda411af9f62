"""What waits is done together; each has its own answer, and nobody waits for who gave up."""

from __future__ import annotations

import asyncio

import pytest

from services.metadata.models.gathering import Gathering


async def test_items_are_done_together_and_each_has_its_answer() -> None:
    done: list[tuple[str, list[int]]] = []
    go_on = asyncio.Event()

    async def do(key: str, items: list[int]) -> list[int | Exception]:
        done.append((key, items))
        await go_on.wait()
        if key == "broken":
            raise ConnectionError
        return [item * 2 if item else ValueError("none") for item in items]

    gathering = Gathering(do, most=3)
    first = asyncio.create_task(gathering.ask("a", 1))
    broken = asyncio.create_task(gathering.ask("broken", 1))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    later = [asyncio.create_task(gathering.ask("a", item)) for item in (2, 0, 3, 4)]
    await asyncio.sleep(0)
    first.cancel()
    later[0].cancel()
    go_on.set()
    answers = await asyncio.gather(first, *later, broken, return_exceptions=True)
    assert [type(answer) for answer in (answers[0], answers[1])] == [asyncio.CancelledError] * 2
    assert isinstance(answers[2], ValueError)
    assert answers[3:5] == [6, 8]
    assert isinstance(answers[5], ConnectionError)
    assert done == [("a", [1]), ("broken", [1]), ("a", [0, 3]), ("a", [4])]
    with pytest.raises(ValueError, match="none"):
        await gathering.ask("a", 0)
