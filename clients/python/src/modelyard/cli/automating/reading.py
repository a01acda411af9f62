"""From an automation's file to what is applied; docs/automations.md shows every key."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelyard._build_spec import build_spec
from modelyard.builder.v1 import automation_pb2
from modelyard.cli.automating.document import Section, Value, parse, text_of
from modelyard.cli.automating.orders import read_order
from modelyard.cli.automating.values import checked, duration, named, seconds
from modelyard.cli.gates import parse_gate
from modelyard.rollouts import Analysis, make_plan

if TYPE_CHECKING:
    from modelyard._names import Names

_SOURCES = {
    "run": automation_pb2.METRIC_SOURCE_RUN_LAST,
    "best of run": automation_pb2.METRIC_SOURCE_RUN_BEST,
    "evaluation": automation_pb2.METRIC_SOURCE_EVALUATION,
    "report": automation_pb2.METRIC_SOURCE_REPORT,
}


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a file asks for."""

    ident: str
    automation: automation_pb2.Automation
    source: Path | None
    """The folder to build; None: from git, or an artifact."""


def read_file(path: Path, names: Names) -> Wanted:
    """Read a file.

    Raises:
        InvalidArgumentError: With the line of what is wrong.
    """
    return read(text_of(path), names, file=str(path), folder=path.parent)


def read(text: str, names: Names, *, file: str = "automation", folder: Path) -> Wanted:
    """Read a file's text; a source in it is relative to a folder."""
    top = parse(text, file)
    ident = top.need("name").read(str)
    model = named(top.need("model"), names.model)
    build = top.need("build").section()
    action, source = _action(build, names, folder)
    deploy = top.find("deploy")
    if deploy is not None:
        action.deploy.CopyFrom(_deploy(deploy.section(), names))
    automation = automation_pb2.Automation(
        model=model,
        description=top.read("description", str, ""),
        disabled=not top.read("enabled", bool, True),
        action=action,
        catch_up=_choice(top.find("catch_up"), automation_pb2.CatchUpPolicy),
        overlap=_choice(top.find("overlap"), automation_pb2.OverlapPolicy),
    )
    trigger, window = top.find("trigger"), top.find("catch_up_window")
    if trigger is not None:
        automation.trigger.CopyFrom(_trigger(trigger.section(), names))
    if window is not None:
        automation.catch_up_window.CopyFrom(duration(window))
    top.close()
    return Wanted(ident, automation, source)


def _trigger(section: Section, names: Names) -> automation_pb2.Trigger:
    trigger = automation_pb2.Trigger()
    zone = section.read("time_zone", str, "")
    kinds = {key: section.find(key) for key in ("cron", "every", "metric", "dataset", "drift")}
    given = {key: value for key, value in kinds.items() if value is not None}
    section.close()
    if len(given) != 1:
        section.place.refuse(f"must have exactly one of {', '.join(kinds)}")
    ((kind, value),) = given.items()
    if zone and kind != "cron":
        section.place.refuse("has a time_zone, which only cron knows")
    if kind == "cron":
        trigger.cron.expression, trigger.cron.time_zone = value.read(str), zone
    elif kind == "every":
        trigger.interval.interval.CopyFrom(duration(value))
    elif kind == "dataset":
        trigger.dataset.dataset = named(value, names.dataset)
    elif kind == "drift":
        trigger.drift.CopyFrom(_drift(value.section(), names))
    else:
        trigger.metric.CopyFrom(_metric(value.section(), names))
    return trigger


def _drift(section: Section, names: Names) -> automation_pb2.DriftTrigger:
    found = automation_pb2.DriftTrigger(
        dataset=named(section.need("dataset"), names.dataset),
        role=section.read("role", str, ""),
        columns=section.list_of("columns"),
    )
    alias, environment = section.find("alias"), section.find("environment")
    psi, distance = section.find("psi_above"), section.find("js_distance_above")
    section.close()
    if (alias is None) == (environment is None):
        section.place.refuse("must have either alias or environment: whose training data counts")
    if alias is not None:
        found.alias = alias.read(str)
    if environment is not None:
        found.environment = named(environment, names.environment)
    if psi is not None and distance is not None:
        section.place.refuse("must have at most one of psi_above and js_distance_above")
    if psi is not None:
        found.psi_above = psi.read(float)
    if distance is not None:
        found.js_distance_above = distance.read(float)
    return found


def _metric(section: Section, names: Names) -> automation_pb2.MetricTrigger:
    of, model = section.need("of"), section.find("model")
    bounds = {key: section.find(key) for key in ("above", "below")}
    metric = section.need("name").read(str)
    section.close()
    given = {key: value for key, value in bounds.items() if value is not None}
    if len(given) != 1:
        section.place.refuse("must have either above or below")
    if of.data not in _SOURCES:
        of.place.refuse(f"must be one of {', '.join(_SOURCES)}")
    ((bound, threshold),) = given.items()
    return automation_pb2.MetricTrigger(
        model="" if model is None else named(model, names.model),
        metric=metric,
        source=_SOURCES[of.data],
        bound=automation_pb2.Bound.Value(f"BOUND_{bound.upper()}"),
        threshold=threshold.read(float),
    )


def _action(
    section: Section, names: Names, folder: Path
) -> tuple[automation_pb2.AutomationAction, Path | None]:
    order = read_order(section, names, folder)
    path = order.source if isinstance(order.source, Path) else None
    source = "" if isinstance(order.source, Path) else order.source
    action = automation_pb2.AutomationAction(build=build_spec(names, source, order.options))
    for name, dataset in order.newest.items():
        action.newest_data.add(name=name, dataset=dataset)
    return action, path


def _deploy(section: Section, names: Names) -> automation_pb2.DeployAction:
    deploy = automation_pb2.DeployAction(
        environment=named(section.need("environment"), names.environment)
    )
    conditions = section.find("only_if")
    for condition in conditions.items() if conditions else ():
        text = condition.read(str)
        gate = checked(condition, lambda _, t=text: parse_gate(t, project=names.default))
        deploy.conditions.append(gate)
    canary = section.find("canary")
    if canary is not None:
        steps = [item.read(int) for item in canary.items()]
        plan = make_plan(
            steps,
            hold=seconds(section.find("hold")),
            manual=False,
            analysis=_analysis(section.find("abort_if")),
            progress_timeout=None,
            keep_warm=section.read("keep_warm", bool, False),
        )
        deploy.plan.CopyFrom(plan)
    section.close()
    return deploy


def _analysis(value: Value | None) -> Analysis | None:
    """Read what aborts a canary."""
    if value is None:
        return None
    section = value.section()
    rate = section.find("error_rate_above")
    increase = section.find("error_rate_increase_above")
    p95, ratio = section.find("p95_above"), section.find("p95_ratio_above")
    analysis = Analysis(
        min_requests=section.read("min_requests", int, 50),
        max_error_rate=None if rate is None else rate.read(float),
        max_error_rate_increase=None if increase is None else increase.read(float),
        max_p95=None if p95 is None else p95.read(float),
        max_p95_ratio=None if ratio is None else ratio.read(float),
    )
    section.close()
    return analysis


def _choice(value: Value | None, enum: Any) -> Any:
    """Read one of an enum's words, such as `skip`."""
    if value is None:
        return 0
    prefix = enum.Name(0).removesuffix("UNSPECIFIED")
    words = {name.removeprefix(prefix).lower(): number for name, number in enum.items() if number}
    if value.data not in words:
        value.place.refuse(f"must be one of {', '.join(words)}")
    return words[value.data]
