"""The order in which a publish reaches the disk, read from a trace of system calls."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from modelyard import Client

from tests.faults.installation import Installation

CALLS = "fsync,fdatasync,rename,renameat,renameat2,sendmsg"
_WHOLE = re.compile(r"^(\d+) +(\w+)\((.*)\) += \d+$")
_BEGUN = re.compile(r"^(\d+) +(\w+)\((.*) <unfinished \.\.\.>$")
_ENDED = re.compile(r"^(\d+) +<\.\.\. (\w+) resumed>(.*) = \d+$")
_OPEN = re.compile(r"^\d+<(TCP:\[.*?\]|.*?)>")
_RENAMED = re.compile(r'"([^"]*)".*"([^"]*)"')


@dataclass(slots=True)
class Call:
    """A system call that went well, and the lines of the trace on which it began and ended."""

    kind: str
    arguments: str
    began: int
    ended: int

    @property
    def open(self) -> str:
        """The open file or connection that it is about; empty if there is none."""
        found = _OPEN.match(self.arguments)
        return found[1] if found else ""


def publish_traced(it: Installation, folder: Path, count: int, calls: str = CALLS) -> list[Call]:
    """Register versions of new bytes, one after the other; return the calls that were made."""
    log = folder / "trace"
    strace = ("strace", "-f", "--seccomp-bpf", "-qq", "-yy", "-s", "4096", "-o", str(log))
    with it.services(*strace, "-e", f"trace={calls}", "-e", "signal=none") as process:
        assert it.comes_up(process), it.log()
        with it.client(timeout=30) as client:
            client.models.create("order")
            for number in range(count):
                _publish(client, folder / f"tree-{number}")
    return list(_read(log))


def _publish(client: Client, tree: Path) -> None:
    tree.mkdir()
    (tree / "weights.bin").write_bytes(os.urandom(10_000))
    client.versions.create("order", artifact=client.artifacts.push(tree).name)


def _read(log: Path) -> Iterator[Call]:
    begun: dict[str, Call] = {}
    with log.open(errors="replace") as lines:
        for number, line in enumerate(lines):
            if whole := _WHOLE.match(line):
                yield Call(whole[2], whole[3], number, number)
            elif half := _BEGUN.match(line):
                begun[half[1]] = Call(half[2], half[3], number, number)
            elif (rest := _ENDED.match(line)) and rest[1] in begun:
                call = begun.pop(rest[1])
                call.ended, call.arguments = number, call.arguments + rest[3]
                yield call


def by_publish(calls: Sequence[Call], it: Installation, count: int) -> Iterator[list[Call]]:
    """Return what was done for each publish, until its answer was sent."""
    last = -1
    for number in range(1, count + 1):
        answer = next(call for call in calls if _answers(call, it, number))
        yield [call for call in calls if last < call.began and call.ended < answer.began]
        last = answer.began


def flushed_out_of_order(calls: Sequence[Call], it: Installation, count: int) -> list[str]:
    """Hold each publish against the order: bytes, name, folder, chunks, version, answer."""
    metadata, artifact = it.data / "metadata.db-wal", it.data / "artifact/artifact.db-wal"
    problems = []
    for number, own in enumerate(by_publish(calls, it, count), start=1):
        packs = [call for call in own if call.kind.startswith("rename")]
        if not packs:
            problems.append(f"{number}: no pack was renamed")
        for pack in packs:
            moved = _RENAMED.search(pack.arguments)
            assert moved is not None, pack
            problem = _out_of_order(
                own, pack, moved[1], (Path(moved[2]).parent, artifact, metadata)
            )
            problems += [f"{number}: {problem}"] if problem else []
    return problems


def _out_of_order(calls: Sequence[Call], pack: Call, source: str, then: Sequence[Path]) -> str:
    if not any(call.open == source and call.ended < pack.began for call in calls):
        return f"{source} was renamed before its bytes were flushed"
    last = pack
    for path in then:
        following = (call for call in calls if call.open == str(path) and call.began > last.ended)
        flushed = next(following, None)
        if flushed is None:
            return (
                f"{path} was not flushed after {last.kind} {last.arguments} and before the answer"
            )
        last = flushed
    return ""


def _answers(call: Call, it: Installation, number: int) -> bool:
    """Say whether a call sends the answer that a version was registered."""
    ours = f":{it.layout.port}->"  # the services' own calls go the other way
    said = rf"models/order/versions/{number}(?!\d)"
    return (
        call.kind == "sendmsg" and ours in call.arguments and bool(re.search(said, call.arguments))
    )
