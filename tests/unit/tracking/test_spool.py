"""Appending: threads, forks, torn lines, the limit."""

from __future__ import annotations

import io
import json
import math
import os
import stat
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from modelyard.tracking.batches import read_batches
from modelyard.tracking.run import ActiveRun
from modelyard.tracking.spool import (
    DATA_FILE,
    DROPPED_FILE,
    Appender,
    create_spool,
    read_position,
    size_of,
    spool_limit,
)


@pytest.fixture
def spool(tmp_path: Path) -> Path:
    return create_spool(tmp_path / "spools", "r-1", {"run": "x"})


def make_run(spool: Path, limit: int = 1 << 30) -> ActiveRun:
    return ActiveRun("projects/p/models/m/runs/r-1", Appender(spool, limit=limit))


def log_steps(run: ActiveRun, count: int) -> None:
    for step in range(count):
        run.log_metric("m", step, step=step)


def lines(spool: Path) -> list[list[object]]:
    return [json.loads(line) for line in (spool / DATA_FILE).read_bytes().splitlines()]


def test_only_the_owner_can_read_a_spool(spool: Path) -> None:
    assert stat.S_IMODE(spool.stat().st_mode) == 0o700
    assert stat.S_IMODE((spool / "run.json").stat().st_mode) == 0o600
    assert stat.S_IMODE(spool.parent.stat().st_mode) == 0o700
    assert read_position(spool) == 0


def test_records_keep_types_and_strange_numbers(spool: Path) -> None:
    run = make_run(spool)
    run.log_params({"n": 1, "x": 1.0, "b": True, "s": "ü", "l": [1, [2.5, "a"]]})
    run.log_metric('a "quoted" key', math.nan, step=-3)
    run.log_metrics({"up": math.inf, "down": -math.inf})
    run.set_tags({"team": "risk", "n": 4})
    (batch,) = read_batches(spool / DATA_FILE, 0)
    params = batch.request.params
    assert params["n"].int_value == 1
    assert params["x"].WhichOneof("kind") == "float_value"
    assert params["b"].bool_value is True
    assert params["l"].list_value.values[1].list_value.values[0].float_value == 2.5
    assert dict(batch.request.tags) == {"team": "risk", "n": "4"}
    columns = {column.key: column for column in batch.request.metrics}
    assert math.isnan(columns['a "quoted" key'].values[0])
    assert list(columns['a "quoted" key'].steps) == [-3]
    assert columns["up"].values[0] == math.inf
    assert columns["down"].values[0] == -math.inf
    assert batch.points == 3


@pytest.mark.parametrize("text", ["", " ", "a\0b", "a\nb", "\x1b[0m", "\ud800", "x" * 251])
def test_what_the_server_would_refuse_is_refused_where_it_is_logged(spool: Path, text: str) -> None:
    run = make_run(spool)
    logs: list[Callable[[], None]] = [
        lambda: run.log_metric(text, 1.0),
        lambda: run.log_metrics({"good": 1.0, text: 1.0}),
        lambda: run.log_param(text, 1),
        lambda: run.set_tag(text, "v"),
    ]
    for log in logs:
        with pytest.raises(ValueError, match="line of 1 to"):
            log()
    if text.strip():
        with pytest.raises(ValueError, match="a line of at most"):
            run.set_tag("k", text * 2)
    assert (spool / DATA_FILE).read_bytes() == b""
    run.log_param("lines", "a\tb\nc")
    with pytest.raises(ValueError, match="control"):
        run.log_param("p", ["fine", "a\0b"])


def test_steps_are_counted_when_they_are_not_given(spool: Path) -> None:
    run = make_run(spool)
    for value in (0.3, 0.2):
        run.log_metric("loss", value)
        run.log_metrics({"loss2": value})
    assert [line[1] for line in lines(spool)] == [0, 0, 1, 1]


@pytest.mark.parametrize("bad", [{"k": object()}, {"k": 2**63}, {"": 1}, {"k" * 251: 1}])
def test_bad_params_are_refused_at_once(spool: Path, bad: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"parameter|key"):
        make_run(spool).log_params({"good": 1, **bad})
    assert lines(spool) == []


def test_a_parameter_cannot_change(spool: Path) -> None:
    run = make_run(spool)
    run.log_param("lr", 0.1)
    run.log_param("lr", 0.1)
    with pytest.raises(ValueError, match="logged before"):
        run.log_param("lr", 0.2)


def test_threads_never_tear_each_others_lines(spool: Path) -> None:
    run = make_run(spool)

    def work(number: int) -> None:
        for step in range(500):
            run.log_metric(f"m{number}", step, step=step)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seen = lines(spool)
    assert len(seen) == 4000
    for number in range(8):
        own = [line[1] for line in seen if f"m{number}" in line[3]]  # type: ignore[operator]
        assert own == list(range(500))


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork.*:DeprecationWarning")
def test_forked_children_log_to_the_same_spool(spool: Path) -> None:
    run = make_run(spool)
    children = []
    for number in range(4):
        child = os.fork()
        if child == 0:
            for step in range(200):
                run.log_metric(f"child{number}", step, step=step)
            os._exit(0)
        children.append(child)
    for child in children:
        assert os.waitpid(child, 0)[1] == 0
    assert len(lines(spool)) == 800


def test_a_torn_last_line_waits_and_garbage_is_counted(spool: Path) -> None:
    run = make_run(spool)
    run.log_metric("a", 1, step=0)
    whole = size_of(spool / DATA_FILE)
    with (spool / DATA_FILE).open("ab") as file:
        file.write(b'["m",1,2,{"a"')
    (batch,) = read_batches(spool / DATA_FILE, 0)
    assert batch.end == whole
    with (spool / DATA_FILE).open("ab") as file:
        file.write(b"\n")
    run.log_metric("a", 3, step=3)
    (batch,) = read_batches(spool / DATA_FILE, 0)
    assert batch.garbled == 1
    assert list(batch.request.metrics[0].steps) == [0, 3]


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"[]",
        b"5",
        b'{"m": 1}',
        b'"m"',
        b"\xff\xfe",
        b'["m",1.5,2,{"a":1.0}]',
        b'["m",true,2,{"a":1.0}]',
        b'["m",1,-2,{"a":1.0}]',
        b'["m",9223372036854775808,2,{"a":1.0}]',
        b'["m",1,2,{"a":"x"}]',
        b'["m",1,2,{"\\ud800":1.0}]',
        b'["m",1,2,["a",1.0]]',
        b'["m",1,2,{"a":1.0}],["m",1,2,{"a":1.0}]',
    ],
)
def test_a_line_that_makes_no_sense_harms_no_other(spool: Path, line: bytes) -> None:
    run = make_run(spool)
    run.log_metric("a", 1, step=0)
    with (spool / DATA_FILE).open("ab") as file:
        file.write(line + b"\n")
    run.log_metric("a", 3, step=3)
    (batch,) = read_batches(spool / DATA_FILE, 0)
    assert batch.garbled == bool(line)
    assert [(m.key, list(m.steps)) for m in batch.request.metrics] == [("a", [0, 3])]
    assert batch.end == size_of(spool / DATA_FILE)


def test_a_line_that_is_completed_while_it_is_read_is_whole(
    spool: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = spool / DATA_FILE
    lines = [b'["m",%d,1,{"a":1.0}]\n' % step for step in range(4)]
    whole = b"".join(lines)
    data.write_bytes(whole[:-40])
    appending = os.open(data, os.O_WRONLY | os.O_APPEND)

    class Growing(io.FileIO):
        """Gets a few bytes longer each time its end is reached."""

        def readinto(self, buffer: Any, /) -> int | None:
            found = super().readinto(buffer)
            size = data.stat().st_size
            os.write(appending, whole[size : size + 7])
            return found

    opened = "modelyard.tracking.batches.Path.open"
    monkeypatch.setattr(opened, lambda path, mode: io.BufferedReader(Growing(path, "r")))
    (batch,) = read_batches(data, 0)
    assert (batch.end, batch.garbled) == (len(whole), 0)
    assert list(batch.request.metrics[0].steps) == [0, 1, 2, 3]
    os.close(appending)


def test_past_the_limit_points_are_dropped_and_counted_once_warned(spool: Path) -> None:
    run = make_run(spool, limit=64 * 1024)
    with pytest.warns(RuntimeWarning, match="limit of 65536") as caught:
        log_steps(run, 5000)
    assert len(caught) == 1
    kept = len(lines(spool))
    assert kept + size_of(spool / DROPPED_FILE) == 5000
    assert size_of(spool / DATA_FILE) <= 64 * 1024
    run.log_param("still", "kept")
    assert lines(spool)[-1] == ["p", "still", "kept"]


def test_batches_are_bounded_and_seamless(spool: Path) -> None:
    run = make_run(spool)
    for step in range(25_000):
        run.log_metric("m", step, step=step)
    batches = list(read_batches(spool / DATA_FILE, 0))
    assert [b.start for b in batches[1:]] == [b.end for b in batches[:-1]]
    assert sum(b.points for b in batches) == 25_000
    assert max(b.points for b in batches) <= 10_000


def test_the_limit_is_a_setting() -> None:
    assert spool_limit({"MODELYARD_SPOOL_LIMIT": "5"}) == 5
    with pytest.raises(ValueError, match="MODELYARD_SPOOL_LIMIT"):
        spool_limit({"MODELYARD_SPOOL_LIMIT": "many"})


def test_an_empty_line_at_the_front_is_passed_over(spool: Path) -> None:
    (spool / DATA_FILE).write_bytes(b"\n" + b'["m",0,1,{"a":1.0}]')
    (batch,) = read_batches(spool / DATA_FILE, 0)
    assert (batch.end, batch.garbled) == (1, 0)
