"""Starting a run, and finding the one that is active."""

from __future__ import annotations

import os
import secrets
import threading
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from modelyard import _names
from modelyard._transport import config as _config
from modelyard.errors import ModelyardError
from modelyard.tracking.destination import RunFacts, dump_facts, find_token_file
from modelyard.tracking.liveness import this_process
from modelyard.tracking.process import entry_point_of_process
from modelyard.tracking.records import check_group, check_notes, check_tag, goal_lines
from modelyard.tracking.run import ActiveRun, LocalRun
from modelyard.tracking.spool import Appender, create_spool, spool_limit, spool_root

BUILD_SPOOL = "MODELYARD_BUILD_SPOOL"
"""Environment variable: the spool folder that the worker ships, inside a build."""

BUILD_RUN = "MODELYARD_BUILD_RUN"
"""Environment variable: the full name of the build's run, if the worker gives it."""


class _Present:
    """The run that this process logs to."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.run: ActiveRun | None = None


_present = _Present()


def active_run() -> ActiveRun | None:
    """Return the run that is being logged to; None when there is none."""
    run = _present.run
    if isinstance(run, LocalRun) and not run.is_active:
        return None
    return run if run is not None else _build_run()


def require_run() -> ActiveRun:
    """Return the run that is being logged to; raise ModelyardError when there is none."""
    run = active_run()
    if run is None:
        raise ModelyardError(
            "no run is active: log inside `with modelyard.start_run(MODEL):`",
            reason="NO_ACTIVE_RUN",
        )
    return run


def start_run(
    model: str,
    *,
    display_name: str = "",
    tags: Mapping[str, Any] | None = None,
    group: str = "",
    notes: str = "",
    goals: Mapping[str, str] | None = None,
    server: str | None = None,
    token: str | None = None,
    project: str | None = None,
) -> ActiveRun:
    """Start a run of a model and return it, to be used with `with`; no network is needed.

    `group` is the id of what it belongs to, such as a sweep; `goals` says `minimize` or `maximize`
    for metrics whose goal the model does not know yet, as in `{"loss": "minimize"}`. Inside a build
    this is the build's own run, and the builder ends it.

    Raises:
        ConfigError: No server is known.
        ModelyardError: A run is active already.
        ValueError: A tag, the group's id, the notes or a goal is none.
    """
    wanted = goal_lines(goals or {})
    with _present.lock:
        if build := _build_run():
            build.set_tags(tags or {})
            build.append_lines(wanted)
            return build
        if active_run() is not None:
            raise ModelyardError("a run is active already: end it first", reason="RUN_ACTIVE")
        settings = _config.find_settings(server, token=token, project=project)
        facts = RunFacts(
            run=f"{_names.Names(settings.project).model(model)}/runs/{new_run_id()}",
            writer=f"spool-{secrets.token_hex(8)}",
            request_id=str(uuid.uuid4()),
            server=settings.server,
            trainer=this_process(),
            directory=str(Path.cwd()),
            entry_point=entry_point_of_process(),
            display_name=display_name,
            tags=dict(check_tag(key, value) for key, value in (tags or {}).items()),
            group=check_group(group),
            notes=check_notes(notes),
            **_credential(settings),
        )
        directory = create_spool(spool_root(), _names.id_of(facts.run), dump_facts(facts))
        run = LocalRun(facts.run, Appender(directory, limit=spool_limit()), settings=settings)
        run.append_lines(wanted)
        _present.run = run
        return run


def new_run_id() -> str:
    """Return an id that no other run has; later ones sort after earlier ones."""
    return f"r-{time.time_ns() // 1_000_000:012x}-{secrets.token_hex(5)}"


def _build_run() -> ActiveRun | None:
    """Return the run of the build that this process is part of, if it is."""
    directory = os.environ.get(BUILD_SPOOL)
    if not directory:
        return None
    if _present.run is None:
        appender = Appender(Path(directory), limit=spool_limit())
        _present.run = ActiveRun(os.environ.get(BUILD_RUN, ""), appender)
    return _present.run


def _credential(settings: _config.ConnectionSettings) -> dict[str, str]:
    """Return what the sender needs to speak for the caller; a file's name rather than a secret."""
    found = {
        "root_certificates": (settings.root_certificates or b"").decode(),
        "certificates_file": str(settings.certificates_file or ""),
    }
    if token_file := find_token_file(settings.token, os.environ):
        return found | {"token_file": token_file}
    return found | {"token": settings.token}
