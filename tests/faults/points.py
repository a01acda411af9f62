"""Named points at which a process of the services is killed.

The services know nothing of them: a point is one of their functions, before or after whose
n-th call the process kills itself. Only `launch.py` sets one.
"""

from __future__ import annotations

import importlib
import inspect
import os
import signal
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import sqlalchemy as sa

Reach: TypeAlias = Callable[[], None]
Install: TypeAlias = Callable[[Reach], None]
Which: TypeAlias = Callable[..., bool]


class Death:
    """Kills this process at the n-th call, counted from when a file is there."""

    def __init__(self, hit: int, since: Path) -> None:
        self._left = hit
        self._since = since
        self._lock = threading.Lock()

    def __call__(self) -> None:
        if not self._since.exists():
            return
        with self._lock:
            self._left -= 1
            if self._left == 0:
                os.kill(os.getpid(), signal.SIGKILL)


def find(where: str) -> tuple[Any, str, Any]:
    """Find `module:name` or `module:Class.name`: what has it, under which name, and what it is."""
    module, _, path = where.partition(":")
    owner: Any = importlib.import_module(module)
    *outer, name = path.split(".")
    for part in outer:
        owner = getattr(owner, part)
    return owner, name, getattr(owner, name)


def before(where: str, which: Which = lambda *_: True) -> Install:
    """Die before a call of a function."""

    def install(reach: Reach) -> None:
        owner, name, original = find(where)

        def hooked(*args: Any, **named: Any) -> Any:
            if which(*args):
                reach()
            return original(*args, **named)

        setattr(owner, name, hooked)

    return install


def after(where: str, which: Which = lambda *_: True) -> Install:
    """Die after a call of a function, before its caller knows."""

    def install(reach: Reach) -> None:
        owner, name, original = find(where)

        def hooked(*args: Any, **named: Any) -> Any:
            answer = original(*args, **named)
            if which(*args):
                reach()
            return answer

        async def hooked_later(*args: Any, **named: Any) -> Any:
            answer = await original(*args, **named)
            if which(*args):
                reach()
            return answer

        setattr(owner, name, hooked_later if inspect.iscoroutinefunction(original) else hooked)

    return install


def uncommitted(service: str) -> Install:
    """Die when all of a transaction is written, and its COMMIT is not sent."""

    def install(reach: Reach) -> None:
        def at_commit(connection: Any) -> None:
            if _service_of(connection.engine) == service:
                reach()

        sa.event.listen(sa.engine.Engine, "commit", at_commit)

    return install


def committed(service: str) -> Install:
    """Die after a commit, before anybody is told: neither who asked nor who follows."""
    writers = ("_CoalescingWriter._commit", "_PooledWriter._commit", "_PooledWriter._perform")

    def install(reach: Reach) -> None:
        for writer in writers:
            of_service: Which = lambda writer, *_: _service_of(writer._engine) == service  # noqa: E731
            after(f"services.common.sql.database:{writer}", of_service)(reach)

    return install


def _service_of(engine: sa.engine.Engine) -> str:
    """Say whose database an engine opens, by the settings of this process."""
    for service in ("metadata", "builder", "deployer", "artifact"):
        url = os.environ.get(f"MODELYARD_{service.upper()}_DATABASE_URL", "")
        if url and sa.make_url(url).database == engine.url.database:
            return service
    return "artifact"  # a file in its folder, without a setting of its own


def _is_file(path: Path) -> bool:
    return path.is_file()


def _is_folder(path: Path) -> bool:
    return path.is_dir()


_HOLD = "services.metadata.models.artifacts:RemoteHolds.hold"
_SYNC = "services.artifact.blobs.disk:_sync"
_FINISH = "services.artifact.storage.packs:PackWriter.finish"
_CREATE_RUN = "services.builder.downstream:Downstream.create_run"
_REGISTRAR = "services.builder.registrar:Registrar"
_START_USE = "services.deployer.metadata:Metadata.start_use"

POINTS: Mapping[str, Install] = {
    "metadata.commit.before": uncommitted("metadata"),
    "metadata.commit.after": committed("metadata"),
    "metadata.version.reserved": before(_HOLD),
    "metadata.version.held": after(_HOLD),
    "artifact.commit.before": uncommitted("artifact"),
    "artifact.commit.after": committed("artifact"),
    "artifact.pack.begun": before(_FINISH),
    "artifact.pack.synced": after(_SYNC, _is_file),
    "artifact.pack.renamed": before(_SYNC, _is_folder),
    "artifact.pack.durable": after(_FINISH),
    "artifact.tree.checked": after("services.artifact.depot:Depot._check_files"),
    "artifact.hold.secured": after("services.artifact.holds:Holds._secure"),
    "builder.commit.before": uncommitted("builder"),
    "builder.commit.after": committed("builder"),
    "builder.attempt.begun": before(_CREATE_RUN),
    "builder.run.created": after(_CREATE_RUN),
    "builder.lines.kept": after("services.builder.ledger:Ledger.append"),
    "builder.winner.recorded": before(f"{_REGISTRAR}._finish"),
    "builder.version.registered": after(f"{_REGISTRAR}._register"),
    "builder.run.finished": after(f"{_REGISTRAR}._finish_run"),
    "deployer.commit.before": uncommitted("deployer"),
    "deployer.commit.after": committed("deployer"),
    "deployer.use.noted": before(_START_USE),
    "deployer.use.told": after(_START_USE),
    "deployer.weights.saved": before("services.deployer.rollouts.journal:publish"),
    "deployer.rollout.ended": before("services.deployer.rollouts.reconciler:Reconciler._end_uses"),
    "every.wakeup.before": before("services.common.events:EventBus.publish"),
    "every.answer.before": before("services.common.rpc.interceptors:Measuring.leave"),
}


def arm(name: str, hit: int, since: Path) -> None:
    """Have this process die at the n-th time it comes to a point.

    Args:
        name: one of `POINTS`.
        hit: at which time, from 1.
        since: a file; times before it is there do not count.
    """
    POINTS[name](Death(hit, since))
