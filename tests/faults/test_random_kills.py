"""kill -9 of anything, at random, under clients that register, log, build and deploy.

What is kept is looked through after every kill, before the process is started again; in the
end everything that was acknowledged is there, once.
"""

from __future__ import annotations

import os
import random
import time
from collections import Counter
from collections.abc import Iterator
from itertools import cycle, islice
from pathlib import Path

import pytest

from tests.e2e.suite import gone, until
from tests.faults.build_storm import command_of
from tests.faults.kill_yards import NEEDS, Yard, on_disk, on_servers
from tests.faults.work import Work

KILLS = int(os.environ.get("MODELYARD_RANDOM_KILLS", "10"))
ORPHAN_SECONDS = 5.0


@pytest.fixture(params=["servers", "disk"])
def yard(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Yard]:
    """An installation of either kind."""
    if request.param == "disk":
        with on_disk(tmp_path) as disk:
            yield disk
    else:
        postgres, s3 = (request.getfixturevalue(name) for name in ("postgres_server", "s3_server"))
        with on_servers(tmp_path, postgres, s3) as servers:
            yield servers


def strike(yard: Yard, victim: str, work: Work) -> bool:
    """Kill something while work goes on, look at what is kept, and start it again.

    Returns:
        whether work was under way that needs what was killed.
    """
    work.goes_on()
    time.sleep(random.uniform(0.02, 1.5))  # noqa: S311 - when, is for chance to say
    hit = bool(work.flights.now() & NEEDS[victim])
    under = yard.kill(victim)
    killed = time.monotonic()
    findings = yard.check()
    looked = time.monotonic()
    left = max(0.1, killed + ORPHAN_SECONDS - looked)
    ran = [command_of(child) for child in under if child.is_running()]
    until(lambda: gone(under), seconds=left, what=f"the end of what {victim} ran: {ran}")
    yard.restart(victim)
    print(
        f"{victim} killed, looked through in {looked - killed:.1f} s, "
        f"back after {time.monotonic() - killed:.1f} s",
        flush=True,
    )
    assert findings == [], f"after {victim} was killed"
    assert work.problems() == []
    return hit


@pytest.mark.slow
@pytest.mark.timeout(7_200)
def test_whatever_is_killed_what_was_acknowledged_is_kept_once(yard: Yard, tmp_path: Path) -> None:
    victims = list(islice(cycle(yard.victims), KILLS))
    random.shuffle(victims)
    hits: Counter[str] = Counter()
    with yard.suite.client() as client:
        work = Work(client, tmp_path)
        work.start()
        try:
            for victim in victims:
                hits[victim] += strike(yard, victim, work)
            work.settle()
        finally:
            print(f"{hits.total()} of {KILLS} kills hit work under way {dict(hits)}; {work}")
        assert work.problems() == []
        assert work.broken_promises() == []
        assert yard.check() == []
        assert len(work.reader.read) >= KILLS
        assert hits.total() >= 0.2 * KILLS, "too few kills hit work: this proves nothing"
