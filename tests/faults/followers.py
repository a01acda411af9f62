"""Who follows what an installation tells, whatever becomes of what it is carried by."""

from __future__ import annotations

import threading
import time

from modelyard import Client
from modelyard.metadata.v1 import run_service_pb2

from tests.e2e.suite import until
from tests.faults.build_storm import Event, check_log

CREATED = run_service_pb2.RUN_CHANGE_TYPE_CREATED
JOIN_SECONDS = 60.0
HEARD = 6
"""Of so many changes at least one is made at another replica than the follower's."""


class Watcher(threading.Thread):
    """Watches a project's runs, and keeps the names of those that were created, each time."""

    def __init__(self, client: Client) -> None:
        super().__init__(name="watcher", daemon=True)
        self.created: list[str] = []
        self._before = set(_runs(client))
        self._client, self._cursor = client, client.changes.cursor(runs=True)
        self._ending = threading.Event()

    def run(self) -> None:
        for change in self._client.changes.runs(cursor=self._cursor):
            if self._ending.is_set():
                return
            if change.type == CREATED:
                self.created.append(change.name)

    def check(self) -> None:
        """Check that it heard of each run once, and end it."""
        created = sorted(set(_runs(self._client)) - self._before)
        until(lambda: len(self.created) >= len(created), what="all runs to be heard of")
        assert sorted(self.created) == created
        self._ending.set()
        self._client.runs.create("last")
        self.join(JOIN_SECONDS)
        assert not self.is_alive()


class LogReader(threading.Thread):
    """Follows one build after the other, from its order to its end."""

    def __init__(self, client: Client, ordered: list[str]) -> None:
        super().__init__(name="log reader", daemon=True)
        self.seen: dict[str, list[Event]] = {}
        self._ending = threading.Event()
        self._client, self._ordered = client, ordered

    def run(self) -> None:
        while not (self._ending.is_set() and len(self.seen) == len(self._ordered)):
            if len(self.seen) == len(self._ordered):
                self._ending.wait(0.05)
                continue
            name = self._ordered[len(self.seen)]
            self.seen[name] = list(self._client.builds.follow(name))

    def finish(self) -> None:
        """Follow what was ordered to its end, and no more."""
        self._ending.set()
        self.join(JOIN_SECONDS)
        assert not self.is_alive(), "a build is followed that has ended"


class Followers:
    """Who watches the project of the work, who watches one where all is quiet, who reads logs.

    None of them is ever started again. Where much is done, any word from a replica makes it look
    for what the other ones said; in a quiet project there is none.
    """

    def __init__(self, client: Client, quiet: Client, ordered: list[str]) -> None:
        """Follow what is done from now on; `ordered` grows with the builds to follow."""
        self._client, self._quiet, self._ordered = client, quiet, ordered
        client.projects.create(quiet.project.rpartition("/")[2])
        quiet.models.create("rare")
        self._watchers = self._busy, self._rare = Watcher(client), Watcher(quiet)
        self.reader = LogReader(client, ordered)
        for follower in (*self._watchers, self.reader):
            follower.start()

    def hear(self) -> float:
        """Have runs created, one by one; return after how long one was heard of at the latest."""
        return max(self._heard() for _ in range(HEARD))

    def _heard(self) -> float:
        began = time.monotonic()
        name = self._quiet.runs.create("rare").name
        until(lambda: name in self._rare.created, what="a run to be heard of")
        return time.monotonic() - began

    def check(self) -> None:
        """Check, after everything has settled, that nothing was missed or told twice."""
        self.reader.finish()
        assert len(self.reader.seen) == len(self._ordered)
        builds = self._client.builds
        for name, live in self.reader.seen.items():
            check_log(live, list(builds.logs(name)), builds.get(name))
        for watcher in self._watchers:
            watcher.check()

    def __str__(self) -> str:
        created = sum(len(watcher.created) for watcher in self._watchers)
        return f"{created} runs watched, {len(self.reader.seen)} builds followed"


def _runs(client: Client) -> list[str]:
    return [run.name for model in client.models.list() for run in client.runs.list(model.name)]
