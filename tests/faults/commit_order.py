"""The order in which a publish reaches S3 and PostgreSQL, read from a trace of system calls."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from tests.faults.flush_order import Call, by_publish
from tests.faults.installation import Installation

COMMIT = "COMMIT\\0"
"""As it is sent, and as the answer says that it was done."""
COMMITS = ("artifact", "metadata", "artifact", "metadata")
"""The chunks, the version's number, the hold on its bytes, the version."""
SENT, RECEIVED = "sendto", "recvfrom"
CALLS = f"{SENT},{RECEIVED},sendmsg"
_DATABASE = re.compile(r"database\\0\w+_(\w+?)\\0")


def committed_out_of_order(calls: Sequence[Call], it: Installation, count: int) -> list[str]:
    """Hold each publish against the order: object taken, chunks, number, hold, version, answer."""
    databases = {
        call.open: found[1] for call in calls if (found := _DATABASE.search(call.arguments))
    }
    problems = []
    for number, own in enumerate(by_publish(calls, it, count), start=1):
        packs = [call for call in own if '"PUT /' in call.arguments]
        if not packs:
            problems.append(f"{number}: no pack was sent")
        for pack in packs:
            problem = _out_of_order(own, pack, databases)
            problems += [f"{number}: {problem}"] if problem else []
    return problems


def _out_of_order(calls: Sequence[Call], pack: Call, databases: Mapping[str, str]) -> str:
    last = _next(calls, pack, RECEIVED, {pack.open}, '"HTTP/1.1 200')
    if last is None:
        return f"{pack.arguments[:100]} was not taken before the answer"
    for database in COMMITS:
        connections = {connection for connection, name in databases.items() if name == database}
        sent = _next(calls, last, SENT, connections, COMMIT)
        done = sent and _next(calls, sent, RECEIVED, {sent.open}, COMMIT)
        if done is None:
            return f"{database} committed nothing between {last.arguments[:100]} and the answer"
        last = done
    return ""


def _next(
    calls: Sequence[Call], last: Call, kind: str, connections: set[str], what: str
) -> Call | None:
    """Return the first call after another that sends or receives something on a connection."""
    return next(
        (
            call
            for call in calls
            if call.began > last.ended
            and call.kind == kind
            and call.open in connections
            and what in call.arguments
        ),
        None,
    )
