"""Automations as files: what they mean, and that whatever is wrong is told with its line."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from modelyard._names import Names
from modelyard._values import decode_value
from modelyard.builder.v1 import automation_pb2, build_pb2
from modelyard.cli.automating.document import parse
from modelyard.cli.automating.reading import Wanted, read, read_file
from modelyard.cli.gates import parse_gate, words
from modelyard.errors import InvalidArgumentError
from modelyard.metadata.v1 import model_pb2

EXAMPLE = Path(__file__).parents[3] / "examples/automation/daily.yaml"
NAMES = Names("p")
UP, DOWN = model_pb2.METRIC_GOAL_MAXIMIZE, model_pb2.METRIC_GOAL_MINIMIZE
GIT = "build: {git: {url: 'https://host/repo'}}"


def wanted(text: str) -> Wanted:
    return read(text, NAMES, file="a.yaml", folder=Path(__file__).parent)


def test_the_example() -> None:
    found = read_file(EXAMPLE, NAMES)
    automation = found.automation
    assert found.ident == "daily"
    assert found.source is not None
    assert found.source.resolve() == EXAMPLE.parents[1] / "breast-cancer"
    assert automation.model == "projects/p/models/breast-cancer"
    assert automation.trigger.cron.expression == "30 2 * * *"
    params = {key: decode_value(value) for key, value in automation.action.build.params.items()}
    assert params == {"algorithm": "forest", "n_estimators": 200}
    floor, better = automation.action.deploy.conditions
    assert floor.metric_threshold.threshold == 0.7
    assert floor.metric_threshold.strict
    assert better.better_than_live.goal == UP
    assert better.better_than_live.strict


def test_the_example_of_drift() -> None:
    found = read_file(EXAMPLE.with_name("drift.yaml"), NAMES)
    drift = found.automation.trigger.drift
    assert drift.dataset == "projects/p/datasets/breast-cancer-requests"
    assert drift.environment == "projects/p/environments/production"
    assert (list(drift.columns), drift.psi_above) == ([], 0.25)
    assert drift.WhichOneof("use") == "environment"


TWO_LIMITS = "psi_above: 1, js_distance_above: 1"
EVERY_KEY = """
name: all
model: churn
description: Everything
enabled: false
catch_up: all
catch_up_window: 90s
overlap: queue
trigger:
  metric: {of: report, name: val/f1, below: 0.7, model: other}
build:
  git: {url: 'https://host/repo', ref: main, subdirectory: model, secret: deploy-key}
  entry: model:Churn
  python_version: '3.12'
  requirements: requirements.lock
  params: {lr: 1e-3, deep: [1, 2], yes: no, on: true, when: 2026-11-27, at: 02:30}
  data: {prices: prices/3, rates: newest rates}
  variables: {A: b}
  secrets: {TOKEN: hub}
  resources: {cpu_cores: 2, memory: 1.5GiB, disk: 10GB, processes: 9}
  timeouts: {train: 2h, test: 5m}
  retries: {out_of_memory: 1}
  network: true
  skip_tests: true
  priority: -5
  pool: gpu
  labels: {team: risk}
  aliases: [candidate]
deploy:
  environment: production
  only_if: [tests, approvals:2, loss < live - 0.01 @holdout]
  canary: [5, 25]
  hold: 10m
  abort_if: {min_requests: 100, error_rate_above: 0.01}
  keep_warm: true
"""


def test_every_key() -> None:
    found = wanted(EVERY_KEY).automation
    spec = found.action.build
    assert (found.disabled, found.catch_up_window.seconds) == (True, 90)
    assert found.catch_up == automation_pb2.CATCH_UP_POLICY_ALL
    assert found.overlap == automation_pb2.OVERLAP_POLICY_QUEUE
    assert found.trigger.metric.source == automation_pb2.METRIC_SOURCE_REPORT
    assert found.trigger.metric.bound == automation_pb2.BOUND_BELOW
    assert found.trigger.metric.model == "projects/p/models/other"
    params = {key: decode_value(value) for key, value in spec.params.items()}
    assert params == {
        "lr": 0.001,
        "deep": [1, 2],
        "yes": "no",
        "on": True,
        "when": "2026-11-27",
        "at": "02:30",
    }
    assert spec.git.secret == "projects/p/secrets/deploy-key"
    assert spec.data[0].dataset_version == "projects/p/datasets/prices/versions/3"
    assert found.action.newest_data[0].dataset == "projects/p/datasets/rates"
    assert spec.resources.memory_bytes == 3 * 2**29
    assert spec.resources.disk_bytes == 10 * 2**30
    assert [(t.phase, t.timeout.seconds) for t in spec.timeouts] == [
        (build_pb2.PHASE_KIND_TRAIN, 7200),
        (build_pb2.PHASE_KIND_TEST, 300),
    ]
    assert (spec.retries.out_of_memory, spec.retries.HasField("worker_lost")) == (1, False)
    assert spec.secrets[0].secret == "projects/p/secrets/hub"
    plan = found.action.deploy.plan
    assert [(step.weight, step.hold.seconds) for step in plan.steps] == [
        (5, 600),
        (25, 600),
        (100, 0),
    ]
    assert plan.analysis.min_request_count == 100


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "line 1: the file is empty"),
        ("name: a\nmodel: [", "line 2: "),
        ("name: a\nmodle: m", "line 1: needs model; is modle meant to be it?"),
        (
            f"name: a\nmodel: m\n{GIT}\ntriger: {{}}",
            "triger is unknown; did you mean trigger?",
        ),
        (f"name: 7\nmodel: m\n{GIT}", "line 1: name must be text"),
        (f"name: a\nname: b\nmodel: m\n{GIT}", "line 2: name is there twice"),
        (f"name: a\nmodel: No Model\n{GIT}", "line 2: model is wrong: 'No Model' is not"),
        ("name: a\nmodel: m\nbuild:\n  source: nowhere", "line 4: build.source is no folder"),
        ("name: a\nmodel: m\nbuild: {}", "line 3: build must have either source or git"),
        (f"name: a\nmodel: m\n{GIT}\ncatch_up: maybe", "must be one of skip, latest, all"),
        (
            f"name: a\nmodel: m\n{GIT}\ntrigger:\n  every: soon",
            "trigger.every is wrong: 'soon' is no duration",
        ),
        (
            f"name: a\nmodel: m\n{GIT}\ntrigger:\n  drift: {{dataset: d}}",
            "trigger.drift must have either alias or environment",
        ),
        (
            f"name: a\nmodel: m\n{GIT}\ntrigger: {{drift: {{dataset: d, alias: b, {TWO_LIMITS}}}}}",
            "trigger.drift must have at most one of psi_above and js_distance_above",
        ),
        (f"name: a\nmodel: m\n{GIT}\ntrigger: {{}}", "must have exactly one of cron, every"),
        (
            f"name: a\nmodel: m\n{GIT}\ndeploy:\n  environment: e\n  only_if:\n    - f1 is good",
            "line 7: deploy.only_if[0] is wrong: 'f1 is good' is no gate",
        ),
        (f"name: &x a\nmodel: m\n{GIT}", "anchors and aliases are not taken"),
        (f"name: !!python/object:os.system a\nmodel: m\n{GIT}", "has a tag"),
        ("a: " * 2, "line 1: "),
        ("[" * 500, "line 1: "),
    ],
)
def test_what_is_wrong_is_told_with_its_line(text: str, problem: str) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        wanted(text)
    assert caught.value.message.startswith("a.yaml, line ")
    assert problem in caught.value.message


@settings(max_examples=150, deadline=None)
@given(st.text(alphabet="ab: -[]{}#&*!|>'\"\n\t%@,?0.é\x00", max_size=60))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        parse(text, "a.yaml").close()
    except InvalidArgumentError as error:
        assert error.message.startswith("a.yaml, line ")  # noqa: PT017 - either way is right


@pytest.mark.parametrize(
    ("text", "kind", "goal", "number", "strict"),
    [
        ("f1 > 0.7", "metric_threshold", UP, 0.7, True),
        ("f1>=0.7", "metric_threshold", UP, 0.7, False),
        ("val/loss <= 1e-3", "metric_threshold", DOWN, 0.001, False),
        ("f1 > live", "better_than_live", UP, 0.0, True),
        ("f1 >= live + 0.01", "better_than_live", UP, 0.01, False),
        ("loss<live-.5", "better_than_live", DOWN, 0.5, True),
        ("better:f1:0.1", "better_than_live", 0, 0.1, False),
    ],
)
def test_gates(text: str, kind: str, goal: int, number: float, strict: bool) -> None:
    gate = parse_gate(text)
    assert gate.WhichOneof("condition") == kind
    condition = getattr(gate, kind)
    found = condition.threshold if kind == "metric_threshold" else condition.margin
    assert (condition.goal, found, condition.strict) == (goal, number, strict)
    assert parse_gate(words(gate)) == gate


@pytest.mark.parametrize("text", ["", "f1", "f1 = 0.7", "f1 > x", "f1 > live - 0.1", "> 1", "a>1e"])
def test_what_is_no_gate(text: str) -> None:
    with pytest.raises(InvalidArgumentError):
        parse_gate(text)
