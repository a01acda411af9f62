"""Between messages and automations: pure functions, and what a caller may not say."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import timedelta
from typing import Any

from google.protobuf import duration_pb2
from modelyard.builder.v1 import automation_pb2, automation_service_pb2
from modelyard.common.v1 import failure_pb2
from modelyard.deployer.v1 import environment_pb2

from services.builder import spec_codec
from services.builder.automations import schedule
from services.builder.automations.domain import (
    DEFAULT_WINDOW,
    GREATEST_INTERVAL,
    GREATEST_WINDOW,
    LEAST_INTERVAL,
    MAX_COLUMN,
    MAX_COLUMNS,
    MAX_CONDITIONS,
    MAX_DESCRIPTION,
    MAX_METRIC,
    MAX_NEWEST_DATA,
    MAX_ROLE,
    OF_TIME,
    TRAINING_ROLE,
    Action,
    Automation,
    Bound,
    CatchUp,
    Cause,
    Deploy,
    Draft,
    Measure,
    MetricSource,
    NewestData,
    Overlap,
    Trigger,
)
from services.builder.codec import timestamp
from services.common.durations import length_of
from services.common.errors import invalid_field
from services.common.names import (
    AutomationName,
    DatasetName,
    EnvironmentName,
    ModelName,
    ProjectName,
    check_id,
    invalid_name,
)

_FIELD = "automation"
_CHANGEABLE = (
    "description",
    "disabled",
    "trigger",
    "action",
    "catch_up",
    "catch_up_window",
    "overlap",
)


def new_automation(
    request: automation_service_pb2.CreateAutomationRequest,
) -> tuple[AutomationName, Draft]:
    """Read a new automation's name and what it is to be."""
    project = ProjectName.parse(request.parent, "parent").project
    name = AutomationName(project, check_id(request.automation_id, "automation_id"))
    model = _owned(ModelName.parse(request.automation.model, f"{_FIELD}.model"), project, "model")
    action = _action(request.automation.action, project)
    return name, Draft(str(model), action, **_settings(request.automation, project))


def change(
    request: automation_service_pb2.UpdateAutomationRequest,
) -> tuple[AutomationName, Callable[[Draft], Draft]]:
    """Read which automation is to change, and how."""
    name = AutomationName.parse(request.automation.name, f"{_FIELD}.name")
    paths = set(request.update_mask.paths) or set(_CHANGEABLE)
    for path in sorted(paths - set(_CHANGEABLE)):
        raise invalid_field("update_mask", f"holds {path}, which cannot be changed")
    written = _settings(request.automation, name.project)
    if "action" in paths:
        written["action"] = _action(request.automation.action, name.project)
    fields = {"window" if path == "catch_up_window" else path for path in paths}
    changes = {field: written[field] for field in fields}
    return name, lambda draft: replace(draft, **changes)


def automation(found: Automation) -> automation_pb2.Automation:
    """Write an automation."""
    draft = found.draft
    message = automation_pb2.Automation(
        name=str(found.name),
        model=draft.model,
        description=draft.description,
        disabled=draft.disabled,
        trigger=_trigger_message(draft.trigger),
        action=_action_message(draft.action),
        catch_up=automation_pb2.CatchUpPolicy.Value(f"CATCH_UP_POLICY_{draft.catch_up}"),
        catch_up_window=spec_codec.duration(draft.window),
        overlap=automation_pb2.OverlapPolicy.Value(f"OVERLAP_POLICY_{draft.overlap}"),
        state=automation_pb2.AutomationState.Value(f"AUTOMATION_STATE_{found.state}"),
        next_time=timestamp(found.next_time),
        principal=found.principal,
        etag=found.etag,
        create_time=timestamp(found.create_time),
        update_time=timestamp(found.update_time),
    )
    if found.suspension:
        failure = failure_pb2.Failure(reason="RIGHT_LOST", message=found.suspension)
        message.suspension.CopyFrom(failure)
    if found.last_execution:
        message.last_execution = f"{found.name}/executions/{found.last_execution}"
    return message


def _settings(message: automation_pb2.Automation, project: str) -> dict[str, Any]:
    """Read all of a draft but its model and its action."""
    if len(message.description) > MAX_DESCRIPTION:
        problem = f"must have at most {MAX_DESCRIPTION:,} characters"
        raise invalid_field(f"{_FIELD}.description", problem)
    trigger = Trigger()
    if message.HasField("trigger"):
        trigger = _trigger(message.trigger, project)
    if trigger.kind is Cause.MANUAL and message.HasField("trigger"):
        raise invalid_field(f"{_FIELD}.trigger", "must say when; leave it out to run by hand alone")
    window = DEFAULT_WINDOW.total_seconds()
    if message.HasField("catch_up_window"):
        window = _seconds(
            message.catch_up_window, timedelta(), GREATEST_WINDOW, f"{_FIELD}.catch_up_window"
        )
    return {
        "trigger": trigger,
        "description": message.description,
        "disabled": message.disabled,
        "catch_up": CatchUp(_word(automation_pb2.CatchUpPolicy, message.catch_up, "catch_up")),
        "window": window,
        "overlap": Overlap(_word(automation_pb2.OverlapPolicy, message.overlap, "overlap")),
    }


def _word(enum: Any, number: int, field: str) -> str:
    """Read an enum's value without its prefix; of policies, an unset one is SKIP."""
    known = {value: name.rpartition("_UNSPECIFIED")[0] for name, value in enum.items()}
    prefix = known[0] + "_"
    if number == 0 and f"{prefix}SKIP" in enum.keys():  # noqa: SIM118 - an enum, not a dict
        return "SKIP"
    if number == 0 or number not in known:
        raise invalid_field(f"{_FIELD}.{field}", "must be one of the documented values")
    return str(enum.Name(number).removeprefix(prefix))


def _seconds(
    message: duration_pb2.Duration, least: timedelta, greatest: timedelta, field: str
) -> float:
    return length_of(message, field, least=least, most=greatest).total_seconds()


def _trigger(message: automation_pb2.Trigger, project: str) -> Trigger:
    field = f"{_FIELD}.trigger"
    match message.WhichOneof("kind"):
        case "cron":
            return _cron(message.cron, f"{field}.cron")
        case "interval":
            length, path = message.interval.interval, f"{field}.interval.interval"
            seconds = _seconds(length, LEAST_INTERVAL, GREATEST_INTERVAL, path)
            return Trigger(Cause.INTERVAL, interval=seconds)
        case "metric":
            return _metric(message.metric, project)
        case "dataset":
            dataset = DatasetName.parse(message.dataset.dataset, f"{field}.dataset.dataset")
            return Trigger(Cause.DATASET, dataset=str(_owned(dataset, project, "trigger.dataset")))
        case "drift":
            return _drift(message.drift, project)
    return Trigger()


def _drift(message: automation_pb2.DriftTrigger, project: str) -> Trigger:
    field = f"{_FIELD}.trigger.drift"
    dataset = DatasetName.parse(message.dataset, f"{field}.dataset")
    if message.WhichOneof("use") is None:
        raise invalid_field(f"{field}.use", "must be an alias or an environment")
    environment = ""
    if message.environment:
        place = EnvironmentName.parse(message.environment, f"{field}.environment")
        environment = str(_owned(place, project, "trigger.drift.environment"))
    if len(message.columns) > MAX_COLUMNS or any(
        not 0 < len(column) <= MAX_COLUMN for column in message.columns
    ):
        problem = f"must be at most {MAX_COLUMNS}, of 1 to {MAX_COLUMN} characters each"
        raise invalid_field(f"{field}.columns", problem)
    measure, threshold = _limit(message, field)
    return Trigger(
        Cause.DRIFT,
        dataset=str(_owned(dataset, project, "trigger.drift.dataset")),
        alias="" if environment else check_id(message.alias, f"{field}.alias"),
        environment=environment,
        role=_role(message.role, f"{field}.role"),
        columns=tuple(dict.fromkeys(message.columns)),
        measure=measure,
        threshold=threshold,
    )


def _limit(message: automation_pb2.DriftTrigger, field: str) -> tuple[Measure, float]:
    match message.WhichOneof("limit"):
        case "psi_above":
            if not 0 <= message.psi_above < math.inf:
                raise invalid_field(f"{field}.psi_above", "must be a finite number, not below 0")
            return Measure.PSI, message.psi_above
        case "js_distance_above":
            if not 0 <= message.js_distance_above <= 1:
                raise invalid_field(f"{field}.js_distance_above", "must be from 0 to 1")
            return Measure.JS_DISTANCE, message.js_distance_above
    return Measure.VERDICT, 0.0


def _role(text: str, field: str) -> str:
    if len(text) > MAX_ROLE or not text.isprintable():
        raise invalid_field(field, f"must have at most {MAX_ROLE} printable characters")
    return text or TRAINING_ROLE


def _cron(message: automation_pb2.CronTrigger, field: str) -> Trigger:
    zone = message.time_zone or "UTC"
    try:
        schedule.zone(zone)
    except ValueError as error:
        raise invalid_field(f"{field}.time_zone", str(error)) from None
    try:
        schedule.check(message.expression, zone)
    except ValueError as error:
        raise invalid_field(f"{field}.expression", str(error)) from None
    return Trigger(Cause.CRON, expression=message.expression, time_zone=zone)


def _metric(message: automation_pb2.MetricTrigger, project: str) -> Trigger:
    field = f"{_FIELD}.trigger.metric"
    model = ""
    if message.model:
        name = ModelName.parse(message.model, f"{field}.model")
        model = str(_owned(name, project, "trigger.metric.model"))
    if not math.isfinite(message.threshold):
        raise invalid_field(f"{field}.threshold", "must be a finite number")
    source = _word(automation_pb2.MetricSource, message.source, "trigger.metric.source")
    bound = _word(automation_pb2.Bound, message.bound, "trigger.metric.bound")
    return Trigger(
        Cause.METRIC,
        model=model,
        metric=metric(message.metric, f"{field}.metric"),
        source=MetricSource(source),
        bound=Bound(bound),
        threshold=message.threshold,
    )


def metric(text: str, field: str) -> str:
    """Read a metric's key, or refuse it."""
    if not 0 < len(text) <= MAX_METRIC or not text.isprintable():
        raise invalid_field(field, f"must have 1 to {MAX_METRIC} printable characters")
    return text


def _action(message: automation_pb2.AutomationAction, project: str) -> Action:
    if not message.HasField("build"):
        raise invalid_field(f"{_FIELD}.action.build", "must be set")
    build = spec_codec.spec(message.build, project)
    newest = _newest(message.newest_data, project)
    names = [*(data.name for data in build.data), *(data.name for data in newest)]
    if len(set(names)) < len(names):
        problem = "must not name anything twice, nor what build.data names"
        raise invalid_field(f"{_FIELD}.action.newest_data", problem)
    deploy = _deploy(message.deploy, project) if message.HasField("deploy") else None
    return Action(build, newest, deploy)


def _newest(messages: Iterable[automation_pb2.NewestData], project: str) -> tuple[NewestData, ...]:
    field = "action.newest_data"
    found: list[NewestData] = []
    for message in messages:
        dataset = DatasetName.parse(message.dataset, f"{_FIELD}.{field}.dataset")
        name = check_id(message.name, f"{_FIELD}.{field}.name")
        found.append(NewestData(name, str(_owned(dataset, project, f"{field}.dataset"))))
    if len(found) > MAX_NEWEST_DATA:
        raise invalid_field(f"{_FIELD}.{field}", f"must be at most {MAX_NEWEST_DATA}")
    return tuple(found)


def _deploy(message: automation_pb2.DeployAction, project: str) -> Deploy:
    field = "action.deploy"
    environment = EnvironmentName.parse(message.environment, f"{_FIELD}.{field}.environment")
    _owned(environment, project, f"{field}.environment")
    if len(message.conditions) > MAX_CONDITIONS:
        raise invalid_field(f"{_FIELD}.{field}.conditions", f"must be at most {MAX_CONDITIONS}")
    gates = [
        _condition(gate, f"{_FIELD}.{field}.conditions[{index}]")
        for index, gate in enumerate(message.conditions)
    ]
    if len({gate.gate_id for gate in gates}) < len(gates):
        raise invalid_field(f"{_FIELD}.{field}.conditions", "must not hold a gate_id twice")
    conditions = tuple(gate.SerializeToString() for gate in gates)
    plan = message.plan.SerializeToString() if message.HasField("plan") else b""
    return Deploy(str(environment), conditions, plan)


def _condition(gate: environment_pb2.Gate, field: str) -> environment_pb2.Gate:
    """Refuse early what the deployer would refuse when the version is built."""
    check_id(gate.gate_id, f"{field}.gate_id")
    kind = gate.WhichOneof("condition")
    if kind is None:
        raise invalid_field(f"{field}.condition", "must be set")
    if kind in ("metric_threshold", "better_than_live"):
        condition = getattr(gate, kind)
        metric(condition.metric, f"{field}.{kind}.metric")
        number = condition.threshold if kind == "metric_threshold" else condition.margin
        if not math.isfinite(number) or (kind == "better_than_live" and number < 0):
            raise invalid_field(f"{field}.{kind}", "must have a finite number; a margin is not < 0")
    return gate


def _owned(name: Any, project: str, field: str) -> Any:
    if name.project != project:
        raise invalid_name(f"{_FIELD}.{field}", "must belong to the automation's project")
    return name


def _trigger_message(trigger: Trigger) -> automation_pb2.Trigger | None:
    if trigger.kind is Cause.MANUAL:
        return None
    message = automation_pb2.Trigger()
    if trigger.kind is Cause.CRON:
        message.cron.expression = trigger.expression
        message.cron.time_zone = trigger.time_zone
    elif trigger.kind in OF_TIME:
        message.interval.interval.CopyFrom(spec_codec.duration(trigger.interval))
    elif trigger.kind is Cause.DATASET:
        message.dataset.dataset = trigger.dataset
    elif trigger.kind is Cause.DRIFT:
        message.drift.CopyFrom(_drift_message(trigger))
    else:
        message.metric.model, message.metric.metric = trigger.model, trigger.metric
        message.metric.source = automation_pb2.MetricSource.Value(f"METRIC_SOURCE_{trigger.source}")
        message.metric.bound = automation_pb2.Bound.Value(f"BOUND_{trigger.bound}")
        message.metric.threshold = trigger.threshold
    return message


def _drift_message(trigger: Trigger) -> automation_pb2.DriftTrigger:
    message = automation_pb2.DriftTrigger(
        dataset=trigger.dataset, role=trigger.role, columns=trigger.columns
    )
    if trigger.environment:
        message.environment = trigger.environment
    else:
        message.alias = trigger.alias
    if trigger.measure is Measure.PSI:
        message.psi_above = trigger.threshold
    elif trigger.measure is Measure.JS_DISTANCE:
        message.js_distance_above = trigger.threshold
    return message


def _action_message(action: Action) -> automation_pb2.AutomationAction:
    message = automation_pb2.AutomationAction(
        build=spec_codec.spec_message(action.build),
        newest_data=[
            automation_pb2.NewestData(name=data.name, dataset=data.dataset)
            for data in action.newest_data
        ],
    )
    if action.deploy is not None:
        message.deploy.environment = action.deploy.environment
        gates = [environment_pb2.Gate.FromString(gate) for gate in action.deploy.conditions]
        message.deploy.conditions.extend(gates)
        if action.deploy.plan:
            message.deploy.plan.ParseFromString(action.deploy.plan)
    return message
