"""A storm of kill -9 over rollouts, and what must be so after each."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import psutil
from modelyard import Client
from modelyard.deployer.v1 import deployment_pb2

from tests.e2e.agent.conftest import Site
from tests.e2e.suite import gone, kill, predict, until
from tests.faults.build_storm import patient
from tests.faults.predictions import BODY, INPUT, Seen
from tests.faults.site import ENVIRONMENT, FAILED, LIVE, address_of

SETTLE_SECONDS = 30.0
ORPHAN_SECONDS = 5.0
VICTIMS = ("services", "agent", "envoy", "model server")


@dataclass
class Storm:
    """Rollouts of one model between two versions, each hit by a kill."""

    site: Site
    client: Client
    model: str
    versions: tuple[str, str]
    seen: Seen
    length: float
    """How many seconds a rollout takes here when nothing is killed."""
    live: int = 1
    kills: Counter[str] = field(default_factory=Counter)
    within: int = 0
    """How many kills came before the rollout had ended."""
    ends: Counter[str] = field(default_factory=Counter)
    slowest: float = 0.0

    def strike(self, victim: str) -> None:
        """Begin a rollout, kill something in it, and wait until all is well again."""
        old, new = self.live, 3 - self.live
        answered = self.seen.versions()
        patient(
            lambda: self.client.deployments.deploy(self.versions[new - 1], environment=ENVIRONMENT)
        )
        time.sleep(random.random() * 1.2 * self.length)  # noqa: S311 - when, is for chance to say
        self.within += self._get().state not in (LIVE, FAILED)
        began = time.monotonic()
        self._kill(victim)
        settled = self._wait(self._settled, began, f"an end after the {victim} was killed")
        self.live = int(_live_version(settled).rpartition("/")[2])
        what = f"version {self.live} alone to answer after the {victim} was killed"
        self._wait(lambda: self._is_as_said(settled), began, what)
        took = time.monotonic() - began
        print(f"{victim} killed, version {self.live} answers after {took:.1f} s", flush=True)
        self.slowest = max(self.slowest, took)
        self.ends["new" if self.live == new else "old"] += 1
        strangers = (self.seen.versions() - answered).keys() - {str(old), str(new)}
        assert not strangers, f"{strangers} answered between {old} and {new}"

    def _wait(self, condition: Callable[[], Any], began: float, what: str) -> Any:
        """Wait until all is well, for so long as it may take since the kill."""
        try:
            return until(condition, seconds=began + SETTLE_SECONDS - time.monotonic(), what=what)
        except AssertionError as error:
            error.add_note(f"{self._get()}")
            error.add_note(f"running: {self.envoys()} {self.model_servers()}")
            raise

    def _kill(self, victim: str) -> None:
        self.kills[victim] += 1
        if victim == "services":
            self.site.kill("services")
            self.site.start("services")
        elif victim == "agent":
            children = self._agent().children(recursive=True)
            self.site.kill("agent")
            until(lambda: gone(children), seconds=ORPHAN_SECONDS, what="the dead agent's children")
            self.site.start("agent")
        else:
            found = self.envoys() if victim == "envoy" else self.model_servers()
            if found:
                kill(random.choice(found))  # noqa: S311

    def _settled(self) -> deployment_pb2.Deployment | None:
        """Return the deployment once it is fully old or fully new."""
        found = self._get()
        if found.state not in (LIVE, FAILED) or len(found.variants) != 1:
            return None
        variant = found.variants[0]
        ready = variant.state == deployment_pb2.VARIANT_STATE_READY and variant.weight == 100
        return found if ready else None

    def _is_as_said(self, settled: deployment_pb2.Deployment) -> bool:
        """Say whether the live version answers, and nothing else runs."""
        found = self._settled()
        if found is None or found.live_revision != settled.live_revision:
            return False
        try:
            answer = predict(address_of(self.site), self.model, BODY)
        except OSError:
            return False
        right: dict[str, Any] = {"version": str(self.live), "value": INPUT * self.live}
        said = {"version": answer["model_version"], "value": answer["outputs"][0]["data"][0]}
        return said == right and len(self.envoys()) == len(self.model_servers()) == 1

    def envoys(self) -> list[psutil.Process]:
        """Find the agent's proxies."""
        return self._find("envoy")

    def model_servers(self) -> list[psutil.Process]:
        """Find the processes that serve the model."""
        return self._find("modelyard.serving")

    def _find(self, what: str) -> list[psutil.Process]:
        """Find the agent's children that run something: the command's name or a whole word."""
        return [
            child
            for child in self._agent().children(recursive=True)
            if _is_running(child, what) and self._is_its_own(child)
        ]

    def _is_its_own(self, child: psutil.Process) -> bool:
        line = _command(child)
        return "--name" not in line or line[line.index("--name") + 1] == self.model

    def _agent(self) -> psutil.Process:
        return psutil.Process(self.site.running["agent"].pid)

    def _get(self) -> deployment_pb2.Deployment:
        return patient(lambda: self.client.deployments.get(self.model, environment=ENVIRONMENT))


def _is_running(process: psutil.Process, what: str) -> bool:
    line = _command(process)
    return bool(line) and (line[0].rpartition("/")[2] == what or what in line)


def _command(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def _live_version(deployment: deployment_pb2.Deployment) -> str:
    revisions = {revision.number: revision.version for revision in deployment.revisions}
    return revisions[deployment.live_revision]
