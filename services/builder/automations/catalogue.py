"""Automations: written, shown, run by hand, deleted."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime

from services.builder import store as build_store
from services.builder import transitions
from services.builder.automations import execution_store, schedule, store
from services.builder.automations.domain import (
    MAX_AUTOMATIONS,
    OF_TIME,
    Automation,
    AutomationState,
    Draft,
    Execution,
    ExecutionState,
    Occurrence,
    Trigger,
    Watching,
)
from services.builder.automations.downstream import Neighbours
from services.builder.automations.firing import fire
from services.builder.domain import Delegation
from services.builder.downstream import Downstream
from services.common.auth import Right
from services.common.errors import (
    Reason,
    ServiceError,
    already_exists,
    etag_mismatch,
    not_found,
    wrong_state,
)
from services.common.listing.filtering import parse_filter
from services.common.names import AutomationName, BuildName, ExecutionName
from services.common.sql.database import Database, Transaction
from services.common.sql.idempotency import Key, answered, once
from services.common.sql.outbox import EPOCH

Change = Callable[[Draft], Draft]


@dataclass(frozen=True, slots=True)
class Author:
    """Who writes an automation, and the credential of the call."""

    principal: str
    credential: str


@dataclass(frozen=True, slots=True)
class _Done:
    """The answer that is kept for a repeat."""


@dataclass(frozen=True, slots=True)
class _Ran:
    """The answer that is kept for a repeat."""

    execution: str


class Catalogue:
    """Keeps automations and shows what they did."""

    def __init__(
        self,
        *,
        database: Database,
        downstream: Downstream,
        neighbours: Neighbours,
        clock: Callable[[], datetime],
    ) -> None:
        self._database = database
        self._downstream = downstream
        self._neighbours = neighbours
        self._clock = clock

    async def create(
        self, name: AutomationName, draft: Draft, author: Author, *, key: Key | None
    ) -> Automation:
        """Create an automation that acts for its author.

        Raises:
            ServiceError: RESOURCE_EXISTS, BYTES_MISSING, RESOURCE_NOT_FOUND (the environment),
                RIGHT_MISSING, LIMIT_EXCEEDED.
        """
        first = await self._database.read(lambda tx: answered(tx, key, _Done))
        if first is None:
            delegation, watching = await self._prepare(name, draft, author)
            automation = self._new(name, draft, author, delegation, watching)
            await self._database.write(
                lambda tx: once(tx, key, _Done, lambda: _add(tx, automation))
            )
        return await self.get(name)

    async def get(self, name: AutomationName) -> Automation:
        """Return an automation, or refuse with RESOURCE_NOT_FOUND."""
        found = await self._database.read(lambda tx: store.find_automation(tx.connection, name))
        if found is None:
            raise not_found(name)
        return found

    async def page(self, project: str, *, after: str, limit: int) -> list[Automation]:
        """Return a project's automations by id, after one."""
        return await self._database.read(
            lambda tx: store.list_automations(tx.connection, project, after=after, limit=limit)
        )

    async def update(
        self, name: AutomationName, change: Change, author: Author, *, etag: str, key: Key | None
    ) -> Automation:
        """Change an automation, which acts for this author from now on.

        Raises:
            ServiceError: RESOURCE_NOT_FOUND, ETAG_MISMATCH, BYTES_MISSING, RIGHT_MISSING.
        """
        if await self._database.read(lambda tx: answered(tx, key, _Done)) is not None:
            return await self.get(name)
        seen = await self.get(name)
        if etag and etag != seen.etag:
            raise etag_mismatch(name, current=seen.etag)
        draft, now = change(seen.draft), self._clock()
        if (draft, author.principal, "") == (seen.draft, seen.principal, seen.suspension):
            return seen
        delegation, watching = await self._prepare(name, draft, author)
        written = replace(
            seen,
            draft=draft,
            principal=author.principal,
            delegation=delegation,
            update_time=now,
            edition=seen.edition + 1,
            suspension="",
            next_time=_next_time(draft, now),
            watching=watching,
            look_time=_look_time(draft),
        )
        await self._database.write(lambda tx: once(tx, key, _Done, lambda: _save(tx, written)))
        if seen.draft.action.build.source != draft.action.build.source:
            await self._release(name, seen, author)
        return await self.get(name)

    async def delete(
        self, name: AutomationName, author: Author, *, etag: str, key: Key | None
    ) -> None:
        """Delete an automation and its executions; those in progress are cancelled.

        Raises:
            ServiceError: RESOURCE_NOT_FOUND, ETAG_MISMATCH.
        """
        if await self._database.read(lambda tx: answered(tx, key, _Done)) is not None:
            return
        seen = await self.get(name)
        now = self._clock()
        await self._database.write(
            lambda tx: once(tx, key, _Done, lambda: _delete(tx, name, etag, now))
        )
        await self._release(name, seen, author)

    async def run(
        self, name: AutomationName, occurrence: Occurrence, *, key: Key | None
    ) -> Execution:
        """Run an automation now, once an occurrence.

        Raises:
            ServiceError: RESOURCE_NOT_FOUND; WRONG_STATE when it is suspended.
        """
        now = self._clock()
        ran = await self._database.write(
            lambda tx: once(tx, key, _Ran, lambda: _run(tx, name, occurrence, now))
        )
        return await self.execution(ExecutionName.parse(ran.execution))

    async def execution(self, name: ExecutionName) -> Execution:
        """Return an execution, or refuse with RESOURCE_NOT_FOUND."""
        found = await self._database.read(
            lambda tx: execution_store.find_execution(tx.connection, name)
        )
        if found is None:
            raise not_found(name)
        return found

    async def executions(
        self,
        parent: AutomationName,
        *,
        where: str,
        before: tuple[datetime, str, int] | None,
        limit: int,
    ) -> list[Execution]:
        """Return executions, newest first, from before a (create time, automation, number) on."""
        expression = parse_filter(where)
        return await self._database.read(
            lambda tx: execution_store.list_executions(
                tx.connection, parent, where=expression, before=before, limit=limit
            )
        )

    async def cancel(self, name: ExecutionName, actor: str) -> Execution:
        """Cancel an execution and its build; one that ended stays as it is.

        Raises:
            ServiceError: RESOURCE_NOT_FOUND; WRONG_STATE when it is DEPLOYING.
        """
        now = self._clock()
        return await self._database.write(lambda tx: _cancel(tx, name, actor, now))

    async def _prepare(
        self, name: AutomationName, draft: Draft, author: Author
    ) -> tuple[Delegation, Watching]:
        """Make sure that an automation has what it needs; it begins to look from now on."""
        action, credential = draft.action, author.credential
        rights = [Right.READ, Right.WRITE, Right.BUILD]
        if action.deploy is not None:
            rights.append(Right.DEPLOY)
            environment = action.deploy.environment
            await self._neighbours.require_environment(environment, credential=credential)
        delegation = await self._downstream.issue_delegation(name, rights, credential=credential)
        if action.build.source:
            await self._neighbours.hold(name, action.build.source, credential=credential)
        watching = await self._begin(draft.trigger, draft.model, credential)
        return delegation, watching

    async def _begin(self, trigger: Trigger, model: str, credential: str) -> Watching:
        """Return where a trigger begins to look: after all that there is."""
        if not trigger.is_polled:
            return Watching()
        if trigger.hears_datasets:
            numbers = await self._neighbours.newest_versions(
                trigger.dataset, after=0, credential=credential
            )
            return Watching(dataset_version=numbers[-1] if numbers else 0)
        cursor = await self._neighbours.cursor(
            trigger, trigger.model or model, credential=credential
        )
        return Watching(cursor=cursor)

    def _new(
        self,
        name: AutomationName,
        draft: Draft,
        author: Author,
        delegation: Delegation,
        watching: Watching,
    ) -> Automation:
        now = self._clock()
        return Automation(
            name=name,
            uid=secrets.token_hex(8),
            draft=draft,
            principal=author.principal,
            delegation=delegation,
            create_time=now,
            update_time=now,
            next_time=_next_time(draft, now),
            watching=watching,
            look_time=_look_time(draft),
        )

    async def _release(self, name: AutomationName, seen: Automation, author: Author) -> None:
        source = seen.draft.action.build.source
        if source:
            await self._neighbours.release(name, source, credential=author.credential)


def _next_time(draft: Draft, now: datetime) -> datetime | None:
    if draft.trigger.kind not in OF_TIME or draft.disabled:
        return None
    return schedule.following(draft.trigger, now)


def _look_time(draft: Draft) -> datetime | None:
    return EPOCH if draft.trigger.is_polled and not draft.disabled else None


def _add(tx: Transaction, automation: Automation) -> _Done:
    name = automation.name
    if store.find_automation(tx.connection, name) is not None:
        raise already_exists(name)
    if store.count_automations(tx.connection, name.project) >= MAX_AUTOMATIONS:
        message = f"a project has at most {MAX_AUTOMATIONS:,} automations"
        maximum = str(MAX_AUTOMATIONS)
        raise ServiceError(Reason.LIMIT_EXCEEDED, message, limit="automations", maximum=maximum)
    store.add_automation(tx.connection, automation)
    return _Done()


def _locked(tx: Transaction, name: AutomationName) -> Automation:
    found = store.find_automation(tx.connection, name, lock=True)
    if found is None:
        raise not_found(name)
    return found


def _save(tx: Transaction, written: Automation) -> _Done:
    """Store what a caller wrote; what its trigger did meanwhile is kept."""
    found = _locked(tx, written.name)
    if (found.uid, found.edition + 1) != (written.uid, written.edition):
        raise etag_mismatch(written.name, current=found.etag)
    merged = replace(written, executions=found.executions, last_execution=found.last_execution)
    # A trigger that was heard goes on as it was; one that is new, or heard again, begins now.
    if found.state is written.state is AutomationState.ACTIVE and (
        found.draft.trigger == written.draft.trigger
    ):
        merged = replace(merged, next_time=found.next_time, watching=found.watching)
    store.save_automation(tx.connection, merged)
    return _Done()


def _delete(tx: Transaction, name: AutomationName, etag: str, now: datetime) -> _Done:
    found = _locked(tx, name)
    if etag and etag != found.etag:
        raise etag_mismatch(name, current=found.etag)
    for execution in execution_store.active_executions(tx.connection, name):
        _cancel_build(tx, execution, now)
    execution_store.delete_executions(tx.connection, name)
    store.delete_automation(tx.connection, name)
    return _Done()


def _run(tx: Transaction, name: AutomationName, occurrence: Occurrence, now: datetime) -> _Ran:
    found = _locked(tx, name)
    if found.suspension:
        raise wrong_state(name, found.state.value, f"{name} is suspended: {found.suspension}")
    fired, execution = fire(tx, found, occurrence, now)
    store.save_automation(tx.connection, fired)
    return _Ran(str(execution.name))


def _cancel(tx: Transaction, name: ExecutionName, actor: str, now: datetime) -> Execution:
    found = execution_store.find_execution(tx.connection, name, lock=True)
    if found is None:
        raise not_found(name)
    if found.state.ended:
        return found
    if found.state is ExecutionState.DEPLOYING:
        message = f"{name} is deploying; roll the deployment back instead"
        raise wrong_state(name, found.state.value, message)
    _cancel_build(tx, found, now)
    cancelled = replace(
        found,
        state=ExecutionState.CANCELLED,
        explanation=f"{actor} cancelled it",
        end_time=now,
    )
    execution_store.cancel_execution(tx.connection, cancelled)
    return cancelled


def _cancel_build(tx: Transaction, execution: Execution, now: datetime) -> None:
    if execution.state is ExecutionState.BUILDING:
        name = BuildName(execution.name.project, execution.build)
        build = transitions.cancel(tx, transitions.load(tx, name), now)
        build_store.save_build(tx.connection, build)
