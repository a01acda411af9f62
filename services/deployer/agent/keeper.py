"""One deployment on this machine: makes what runs into what is assigned, over and over.

Level-triggered: whatever changed (an assignment, a variant that got ready, died
or drained), `_look` compares the whole and does the next thing. A variant gets
requests only once it is ready; it is drained only once the others have them.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, replace

from services.common import telemetry
from services.common.names import DeploymentName
from services.deployer.agent.data_plane import Condition, DataPlane, VariantKey
from services.deployer.agent.envoy import ConfigRejectedError, EnvoyError
from services.deployer.agent.model_server import ModelServerError
from services.deployer.agent.preparing import (
    NotNowError,
    PreparationError,
    Preparer,
    environment_of,
    variant_key,
)
from services.deployer.domain import (
    AssignedVariant,
    Assignment,
    Failure,
    Report,
    VariantReport,
    VariantState,
)
from services.deployer.rollouts.plans import Traffic

logger = logging.getLogger(__name__)

RETRY_SECONDS = 1.0
MAX_BACKOFF_SECONDS = 30.0
STAYED_SECONDS = 60.0
_PASSING = (ConfigRejectedError, EnvoyError, OSError)
"""What may be over soon, a full disk too: it is tried again, and harms no other deployment."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How long things may take, in seconds."""

    ready: float
    drain: float


class DeploymentKeeper:
    """Keeps one deployment as it is assigned."""

    def __init__(
        self,
        name: DeploymentName,
        *,
        port: int,
        data_plane: DataPlane,
        preparer: Preparer,
        limits: Limits,
        tell: Callable[[Report], None],
    ) -> None:
        self._name = name
        self._port = port
        self._data_plane = data_plane
        self._preparer = preparer
        self._limits = limits
        self._tell = tell
        self._assignment = Assignment()
        self._variants: dict[int, VariantReport] = {}
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._restarts: dict[int, tuple[int, float]] = {}
        self._in_force: dict[int, int] | None = None
        self._counted: dict[int, Traffic] = {}
        self._was_assigned = False
        self._how: dict[int, Condition | None] = {}
        self._changed = asyncio.Event()

    def assign(self, assignment: Assignment) -> None:
        """Take a new assignment; the same one again makes the keeper report again."""
        self._assignment, self._was_assigned = assignment, True
        self._changed.set()

    def crashed(self, revision: int, error: ModelServerError) -> None:
        """Take note that a ready variant died."""
        self._in_force = None
        self._set(revision, VariantState.FAILED, Failure(error.reason, error.message))

    @property
    def is_shifting(self) -> bool:
        """Say whether several variants answer, or are about to: then counts matter soon."""
        return len(self._assignment.variants) > 1

    def count(self, counted: Mapping[VariantKey, Traffic]) -> None:
        """Take what was counted of the variants by now, and how they are; report what is news."""
        mine = {revision: counted[key] for revision, key in self._keys().items() if key in counted}
        conditions = self._data_plane.ready()
        how = {revision: conditions.get(key) for revision, key in self._keys().items()}
        if (mine, how) != (self._counted, self._how):
            self._counted, self._how = mine, how
            self._changed.set()

    def _keys(self) -> dict[int, VariantKey]:
        return {revision: variant_key(self._name, revision) for revision in self._variants}

    async def run(self) -> None:
        """Keep the deployment until it is gone: nobody assigns it, and nothing of it runs."""
        async with asyncio.TaskGroup() as tasks:
            while not self._is_over:
                await self._changed.wait()
                self._changed.clear()
                await self._look(tasks)

    @property
    def _is_over(self) -> bool:
        idle = not (self._variants or self._tasks or self._changed.is_set())
        return self._was_assigned and idle and self._assignment == Assignment()

    async def _look(self, tasks: asyncio.TaskGroup) -> None:
        assignment = self._assignment
        for variant in assignment.variants:
            if self._needs_start(variant):
                work = self._bring_up(variant, assignment.trace_parent)
                self._begin(tasks, variant.revision, work)
        applied = await self._apply(assignment)
        if applied:
            for revision in list(self._variants):
                known = self._variants[revision].state
                if assignment.weight(revision) is None and known is not VariantState.DRAINING:
                    await self._abandon(revision)
                    was_ready = self._is_ready(revision)
                    # Said at once: the next look may come before the task has begun.
                    self._set(revision, VariantState.DRAINING)
                    work = self._take_down(revision, assignment.trace_parent, drain=was_ready)
                    self._begin(tasks, revision, work)
        self._tell(Report(assignment.generation, applied, self._reports()))

    def _reports(self) -> tuple[VariantReport, ...]:
        """Say how each variant is, with what was counted of it last."""
        conditions = self._data_plane.ready()
        return tuple(
            self._report(report, conditions.get(variant_key(self._name, report.revision)))
            for _, report in sorted(self._variants.items())
        )

    def _report(self, known: VariantReport, condition: Condition | None) -> VariantReport:
        counted = self._counted.get(known.revision)
        if condition is None:
            return replace(known, traffic=counted)
        return replace(
            known,
            ready_replica_count=condition.ready_count,
            restart_count=condition.restart_count,
            traffic=counted,
            wanted_replica_count=condition.wanted_count,
            scaling=condition.scaling,
        )

    def _needs_start(self, variant: AssignedVariant) -> bool:
        if variant.revision in self._tasks:
            return False
        known = self._variants.get(variant.revision)
        if known is None:
            return True
        # One that failed before it got requests is the deployer's to give up.
        return known.state is VariantState.FAILED and variant.weight > 0

    async def _apply(self, assignment: Assignment) -> bool:
        """Put the shares in force once all who are to get requests are ready."""
        shares = {variant.revision: variant.weight for variant in assignment.variants}
        if not all(self._is_ready(number) for number, share in shares.items() if share > 0):
            return False
        if self._in_force == shares or not self._variants:
            return True
        environment = str(environment_of(self._name))
        try:
            with telemetry.span("agent shift", trace_parent=assignment.trace_parent):
                await self._open()
                await self._data_plane.set_weights(environment, self._name.deployment, shares)
        except KeyError:
            self._find_missing(shares)
            return False
        except _PASSING as error:
            self._warn("shares not in force, soon again", error)
            asyncio.get_running_loop().call_later(RETRY_SECONDS, self._changed.set)
            return False
        self._in_force = shares
        return True

    def _find_missing(self, shares: dict[int, int]) -> None:
        """Take note of ready variants that do not run: they died just now."""
        running = self._data_plane.ready()
        for revision in shares:
            if self._is_ready(revision) and variant_key(self._name, revision) not in running:
                gone = Failure("CRASHED", "the model server does not run any more")
                self._set(revision, VariantState.FAILED, gone)

    async def _bring_up(self, variant: AssignedVariant, trace_parent: str) -> None:
        """Prepare and start a variant; one with requests to answer is tried for ever."""
        revision = variant.revision
        while True:
            await asyncio.sleep(self._restart_delay(revision))
            self._set(revision, VariantState.STARTING)
            try:
                await self._start(variant, trace_parent)
            except (PreparationError, ModelServerError) as error:
                self._set(revision, VariantState.FAILED, _failure(error))
                if not self._assignment.weight(revision):
                    return
            except (NotNowError, *_PASSING) as error:
                self._warn("variant not started, soon again", error)
                self._restarts.pop(revision, None)
                told = error.retry_seconds if isinstance(error, NotNowError) else 0.0
                await asyncio.sleep(max(RETRY_SECONDS, told))
            else:
                self._in_force = None
                self._set(revision, VariantState.READY)
                return

    async def _start(self, variant: AssignedVariant, trace_parent: str) -> None:
        with telemetry.span("agent bring up", trace_parent=trace_parent):
            await self._open()  # first: until the model answers, its callers are told to wait
            prepared = await self._preparer.prepare(self._name, variant)
            with telemetry.span("agent start"):
                await self._data_plane.ensure(prepared, deadline=self._limits.ready)

    async def _open(self) -> None:
        environment, model = str(environment_of(self._name)), self._name.deployment
        await self._data_plane.open_environment(environment, port=self._port, model=model)

    async def _take_down(self, revision: int, trace_parent: str, *, drain: bool) -> None:
        """Let a variant finish its requests, and end it."""
        key = variant_key(self._name, revision)
        if drain:
            with telemetry.span("agent drain", trace_parent=trace_parent):
                try:
                    await self._data_plane.drain(key, within=self._limits.drain)
                except _PASSING as error:
                    self._warn("not drained", error)
        while True:
            try:
                wanted = bool(self._assignment.variants)
                await self._data_plane.remove(key, keep_model=wanted)
                break
            except _PASSING as error:
                self._warn("not removed, soon again", error)
                await asyncio.sleep(RETRY_SECONDS)
        self._variants.pop(revision, None)
        self._counted.pop(revision, None)
        self._restarts.pop(revision, None)
        self._changed.set()

    def _begin(
        self, tasks: asyncio.TaskGroup, revision: int, work: Coroutine[None, None, None]
    ) -> None:
        task = tasks.create_task(work)
        self._tasks[revision] = task
        task.add_done_callback(lambda done: self._ended(revision, done))

    def _ended(self, revision: int, task: asyncio.Task[None]) -> None:
        if self._tasks.get(revision) is task:
            del self._tasks[revision]
        self._changed.set()

    async def _abandon(self, revision: int) -> None:
        """Stop bringing up a variant that is no longer wanted."""
        task = self._tasks.get(revision)
        if task is not None:
            task.cancel()
            await asyncio.wait([task])

    def _restart_delay(self, revision: int) -> float:
        """Return how long to wait before a start: longer each time it did not stay."""
        count, last = self._restarts.get(revision, (0, 0.0))
        now = time.monotonic()
        count = 0 if now - last > STAYED_SECONDS else count
        self._restarts[revision] = (count + 1, now)
        return min(MAX_BACKOFF_SECONDS, 2.0 ** (count - 1)) if count else 0.0

    def _is_ready(self, revision: int) -> bool:
        known = self._variants.get(revision)
        return known is not None and known.state is VariantState.READY

    def _set(self, revision: int, state: VariantState, failure: Failure | None = None) -> None:
        self._variants[revision] = VariantReport(revision, state, failure)
        self._changed.set()

    def _warn(self, message: str, error: Exception) -> None:
        logger.warning(message, extra={"deployment": str(self._name), "error": str(error)})


def _failure(error: PreparationError | ModelServerError) -> Failure:
    if isinstance(error, PreparationError):
        return error.failure
    return Failure(error.reason, error.message)
