"""From an automation's file to what is applied; docs/automations.md shows every key."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from google.protobuf.duration_pb2 import Duration

from modelyard._values import encode_value
from modelyard.builder.v1 import automation_pb2, build_pb2
from modelyard.cli import amounts
from modelyard.cli.automating.document import Section, Value, entries, parse
from modelyard.cli.gates import parse_gate
from modelyard.errors import InvalidArgumentError
from modelyard.rollouts import Analysis, make_plan

if TYPE_CHECKING:
    from modelyard._names import Names

_SOURCES = {
    "run": automation_pb2.METRIC_SOURCE_RUN_LAST,
    "best of run": automation_pb2.METRIC_SOURCE_RUN_BEST,
    "evaluation": automation_pb2.METRIC_SOURCE_EVALUATION,
    "report": automation_pb2.METRIC_SOURCE_REPORT,
}
_NEWEST = "newest"


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
    try:
        text = path.read_text("utf-8")
    except UnicodeDecodeError:
        raise InvalidArgumentError(f"{path} is no UTF-8", reason="INVALID_FIELD") from None
    return read(text, names, file=str(path), folder=path.parent)


def read(text: str, names: Names, *, file: str = "automation", folder: Path) -> Wanted:
    """Read a file's text; a source in it is relative to a folder."""
    top = parse(text, file)
    ident = top.need("name").read(str)
    model = _named(top.need("model"), names.model)
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
        automation.catch_up_window.CopyFrom(_duration(window))
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
        trigger.interval.interval.CopyFrom(_duration(value))
    elif kind == "dataset":
        trigger.dataset.dataset = _named(value, names.dataset)
    elif kind == "drift":
        trigger.drift.CopyFrom(_drift(value.section(), names))
    else:
        trigger.metric.CopyFrom(_metric(value.section(), names))
    return trigger


def _drift(section: Section, names: Names) -> automation_pb2.DriftTrigger:
    found = automation_pb2.DriftTrigger(
        dataset=_named(section.need("dataset"), names.dataset),
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
        found.environment = _named(environment, names.environment)
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
        model="" if model is None else _named(model, names.model),
        metric=metric,
        source=_SOURCES[of.data],
        bound=automation_pb2.Bound.Value(f"BOUND_{bound.upper()}"),
        threshold=threshold.read(float),
    )


def _action(
    section: Section, names: Names, folder: Path
) -> tuple[automation_pb2.AutomationAction, Path | None]:
    spec = build_pb2.BuildSpec(
        entry=section.read("entry", str, ""),
        python_version=section.read("python_version", str, ""),
        requirements=section.read("requirements", str, ""),
        network=section.read("network", bool, False),
        skip_tests=section.read("skip_tests", bool, False),
        priority=section.read("priority", int, 0),
        pool=section.read("pool", str, ""),
        variables=section.texts("variables"),
        labels=section.texts("labels"),
        aliases=section.list_of("aliases"),
    )
    source = _source(section, spec, names, folder)
    params = section.find("params")
    for key, value in entries(params.section()) if params else ():
        spec.params[key].CopyFrom(_checked(value, encode_value))
    for variable, secret in section.texts("secrets").items():
        spec.secrets.add(variable=variable, secret=names.secret(secret))
    _resources(section, spec)
    action = automation_pb2.AutomationAction(build=spec)
    _data(section, action, names)
    section.close()
    return action, source


def _source(section: Section, spec: build_pb2.BuildSpec, names: Names, folder: Path) -> Path | None:
    source, git = section.find("source"), section.find("git")
    if (source is None) == (git is None):
        section.place.refuse("must have either source or git")
    if git is not None:
        given = git.section()
        spec.git.url = given.need("url").read(str)
        spec.git.ref = given.read("ref", str, "")
        spec.git.subdirectory = given.read("subdirectory", str, "")
        secret = given.find("secret")
        if secret is not None:
            spec.git.secret = _named(secret, names.secret)
        given.close()
        return None
    assert source is not None  # noqa: S101 - one of the two is there
    text = source.read(str)
    if names.is_artifact(text):
        spec.source = names.artifact(text)
        return None
    path = folder / text
    if not path.is_dir():
        source.place.refuse(f"is no folder beside the file: {text}")
    return path


def _resources(section: Section, spec: build_pb2.BuildSpec) -> None:
    found = section.find("resources")
    if found is not None:
        given = found.section()
        spec.resources.cpu_cores = given.read("cpu_cores", float, 0.0)
        spec.resources.process_count = given.read("processes", int, 0)
        for key, field in (("memory", "memory_bytes"), ("disk", "disk_bytes")):
            size = given.find(key)
            if size is not None:
                setattr(spec.resources, field, _size(size))
        given.close()
    timeouts = section.find("timeouts")
    for phase, value in entries(timeouts.section()) if timeouts else ():
        kind = f"PHASE_KIND_{phase.upper()}"
        if kind not in build_pb2.PhaseKind.keys():  # noqa: SIM118 - an enum, not a dict
            value.place.refuse("is no phase, such as train")
        spec.timeouts.add(phase=build_pb2.PhaseKind.Value(kind), timeout=_duration(value))
    retries = section.find("retries")
    if retries is not None:
        given = retries.section()
        for key in ("worker_lost", "out_of_memory", "timeout"):
            count = given.find(key)
            if count is not None:
                setattr(spec.retries, key, count.read(int))
        given.close()


def _data(section: Section, action: automation_pb2.AutomationAction, names: Names) -> None:
    """Read data inputs: `prices/3`, or `newest prices`."""
    data = section.find("data")
    for name, value in entries(data.section()) if data else ():
        word, _, dataset = value.read(str).partition(" ")
        if word == _NEWEST and dataset:
            action.newest_data.add(
                name=name,
                dataset=_checked(value, lambda _, d=dataset: names.dataset(d)),
            )
        else:
            action.build.data.add(name=name, dataset_version=_named(value, names.dataset_version))


def _deploy(section: Section, names: Names) -> automation_pb2.DeployAction:
    deploy = automation_pb2.DeployAction(
        environment=_named(section.need("environment"), names.environment)
    )
    conditions = section.find("only_if")
    for condition in conditions.items() if conditions else ():
        text = condition.read(str)
        gate = _checked(condition, lambda _, t=text: parse_gate(t, project=names.default))
        deploy.conditions.append(gate)
    canary = section.find("canary")
    if canary is not None:
        steps = [item.read(int) for item in canary.items()]
        plan = make_plan(
            steps,
            hold=_seconds(section.find("hold")),
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


def _named(value: Value, resolve: Any) -> str:
    """Read the name of a resource, in short or in full."""
    return str(_checked(value, resolve, text=value.read(str)))


def _checked(value: Value, make: Any, *, text: object = None) -> Any:
    """Make something of a value; what is wrong with it is said with its line."""
    try:
        return make(value.plain() if text is None else text)
    except InvalidArgumentError as error:
        value.place.refuse(f"is wrong: {error.message}")


def _duration(value: Value) -> Duration:
    duration = Duration()
    duration.FromTimedelta(timedelta(seconds=_seconds(value)))
    return duration


def _seconds(value: Value | None) -> float:
    """Read a length of time such as `90s`, `10m`, `6h` or `1d`."""
    if value is None:
        return 0.0
    return float(_checked(value, amounts.duration, text=str(value.data)))


def _size(value: Value) -> int:
    """Read a size such as `512MiB` or `2G`."""
    return int(_checked(value, amounts.size, text=str(value.data)))
