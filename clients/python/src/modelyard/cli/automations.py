"""`modelyard automations`: what builds by itself, and why it did or did not deploy."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from modelyard.cli.context import as_json, client
from modelyard.cli.gates import words
from modelyard.cli.render import (
    leaf,
    moment,
    seconds_between,
    short_version,
    show_list,
    show_one,
    state,
)

if TYPE_CHECKING:
    from modelyard.builder.v1 import automation_pb2, execution_pb2


def register(group: typer.Typer) -> None:
    """Add `automations` to the command line."""
    for name, command in (
        ("apply", apply),
        ("list", list_automations),
        ("show", show),
        ("run", run),
        ("executions", executions),
        ("explain", explain),
        ("cancel", cancel),
        ("enable", enable),
        ("disable", disable),
        ("delete", delete),
        ("report", report),
    ):
        group.command(name)(command)


def apply(
    file: Annotated[
        list[Path], typer.Option("--file", "-f", help="A YAML file; repeatable.", exists=True)
    ],
) -> None:
    """Create the automations of files, or make them so; a source folder is pushed first."""
    from modelyard._names import Names  # noqa: PLC0415
    from modelyard.cli.automating.reading import read_file  # noqa: PLC0415

    connection = client()
    names = Names(connection.settings.project)
    wanted = [read_file(path, names) for path in file]
    for one in wanted:
        _show(connection.automations.apply(one.ident, one.automation, source=one.source))


def list_automations() -> None:
    """List automations."""
    from modelyard.builder.v1 import automation_pb2 as pb  # noqa: PLC0415

    show_list(
        client().automations.list(),
        {
            "AUTOMATION": lambda a: leaf(a.name),
            "MODEL": lambda a: leaf(a.model),
            "STATE": lambda a: state(pb.AutomationState, a.state),
            "TRIGGER": _trigger,
            "NEXT": lambda a: moment(a.next_time),
            "LAST": lambda a: leaf(a.last_execution) or "-",
            "FOR": lambda a: a.principal,
        },
    )


def show(automation: str) -> None:
    """Show an automation."""
    _show(client().automations.get(automation))


def run(
    automation: str,
    key: Annotated[
        str, typer.Option(help="What this run stands for, such as a date; a key runs once.")
    ] = "",
    wait: Annotated[bool, typer.Option(help="Wait and end with its outcome.")] = False,
) -> int:
    """Run an automation now.

    With --wait the exit status is 0 when it did what it should, which may be not to deploy
    (SKIPPED), and 1 when it FAILED or was CANCELLED.
    """
    from modelyard.builder.v1 import execution_pb2 as pb  # noqa: PLC0415

    connection = client()
    found = connection.automations.run(automation, key=key)
    if wait:
        found = connection.automations.wait(found.name)
    _show_execution(found)
    bad = (pb.EXECUTION_STATE_FAILED, pb.EXECUTION_STATE_CANCELLED)
    return 1 if wait and found.state in bad else 0


def executions(
    automation: Annotated[str, typer.Argument(help="Only this automation's.")] = "",
    filter_: Annotated[str, typer.Option("--filter", help="E.g. 'state = FAILED'.")] = "",
) -> None:
    """List executions, newest first, and why each did or did not deploy."""
    from modelyard.builder.v1 import execution_pb2 as pb  # noqa: PLC0415

    show_list(
        client().automations.executions(automation or None, filter=filter_),
        {
            "EXECUTION": lambda e: f"{e.name.split('/')[3]}/{leaf(e.name)}",
            "STATE": lambda e: state(pb.ExecutionState, e.state),
            "CAUSE": lambda e: state(pb.ExecutionCause, e.cause).lower(),
            "VERSION": lambda e: short_version(e.version) or "-",
            "STARTED": lambda e: moment(e.create_time),
            "TOOK": lambda e: seconds_between(e.start_time, e.end_time),
            "WHY": lambda e: e.explanation,
        },
    )


def explain(
    execution: Annotated[str, typer.Argument(help="AUTOMATION/EXECUTION.")],
) -> None:
    """Show an execution: what caused it, how its version was judged, what came of it."""
    _show_execution(client().automations.execution(execution))


def cancel(execution: Annotated[str, typer.Argument(help="AUTOMATION/EXECUTION.")]) -> None:
    """Cancel an execution and its build."""
    _show_execution(client().automations.cancel(execution))


def enable(automation: str) -> None:
    """Hear an automation's trigger again; from now on it acts for you."""
    _show(client().automations.enable(automation))


def disable(automation: str) -> None:
    """Hear an automation's trigger no more; it can still be run by hand."""
    _show(client().automations.disable(automation))


def delete(automation: str) -> None:
    """Delete an automation and its executions; those in progress are cancelled."""
    client().automations.delete(automation)
    if not as_json():
        print(f"{automation} is deleted")


def report(model: str, metric: str, value: float) -> None:
    """Report a value of a model's metric, such as from production."""
    started = client().automations.report(model, metric, value)
    for name in started:
        print(f"{name.split('/')[3]}/{leaf(name)}")


def _show(automation: automation_pb2.Automation) -> None:
    from modelyard.builder.v1 import automation_pb2 as pb  # noqa: PLC0415

    deploy = automation.action.deploy
    conditions = ", ".join(words(gate) for gate in deploy.conditions)
    source = automation.action.build.git.url or leaf(automation.action.build.source)[:12]
    show_one(
        automation,
        {
            "automation": leaf(automation.name),
            "model": leaf(automation.model),
            "state": state(pb.AutomationState, automation.state),
            "suspended": automation.suspension.message,
            "description": automation.description,
            "trigger": _trigger(automation),
            "source": source,
            "deploys to": leaf(deploy.environment),
            "only if": conditions,
            "next": moment(automation.next_time) if automation.HasField("next_time") else "",
            "last": leaf(automation.last_execution),
            "acts for": automation.principal,
        },
    )


def _trigger(automation: automation_pb2.Automation) -> str:
    """Say in a few words when it runs."""
    from modelyard.builder.v1 import automation_pb2 as pb  # noqa: PLC0415

    trigger: Any = automation.trigger
    match trigger.WhichOneof("kind"):
        case "cron":
            return f"cron {trigger.cron.expression} {trigger.cron.time_zone}"
        case "interval":
            return f"every {trigger.interval.interval.ToTimedelta()}"
        case "dataset":
            return f"dataset {leaf(trigger.dataset.dataset)}"
        case "drift":
            drift = trigger.drift
            use = drift.alias or leaf(drift.environment)
            return f"drift of {leaf(drift.dataset)} from the data of {use}"
        case "metric":
            metric = trigger.metric
            bound = state(pb.Bound, metric.bound).lower()
            source = state(pb.MetricSource, metric.source).lower().replace("_", " ")
            return f"{source} {metric.metric} {bound} {metric.threshold:g}"
    return "by hand"


def _show_execution(execution: execution_pb2.Execution) -> None:
    from modelyard.builder.v1 import execution_pb2 as pb  # noqa: PLC0415

    verdicts = {
        f"  {v.gate_id}": f"{'passes' if v.passed else 'refuses'}: {v.explanation}"
        for v in execution.verdicts
    }
    show_one(
        execution,
        {
            "execution": f"{execution.name.split('/')[3]}/{leaf(execution.name)}",
            "state": state(pb.ExecutionState, execution.state),
            "cause": execution.cause_explanation,
            "build": leaf(execution.build),
            "version": short_version(execution.version),
            **verdicts,
            "why": execution.explanation,
            "took": seconds_between(execution.start_time, execution.end_time),
        },
    )
