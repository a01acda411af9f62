"""Builds as files: what they say is what a build's options say, and what is wrong has its line."""

from __future__ import annotations

from pathlib import Path

import pytest
from modelyard import GitSource
from modelyard._build_spec import build_spec
from modelyard._names import Names
from modelyard.builder.v1 import build_pb2
from modelyard.cli.automating.orders import read_build_file
from modelyard.errors import InvalidArgumentError

NAMES = Names("p")
EVERY_KEY = """
model: churn
group: g-1
git: {url: 'https://host/repo', ref: main, subdirectory: model, secret: forge}
entry: model:Churn
python_version: '3.12'
requirements: requirements.lock
params: {rate: 1e-3, layers: [8, 8]}
data: {train: prices/3}
variables: {OMP_NUM_THREADS: '2'}
secrets: {TOKEN: warehouse}
network: true
resources: {cpu_cores: 0.5, memory: 2G, disk: 10GiB, processes: 64}
timeouts: {train: 2h}
retries: {out_of_memory: 1}
skip_tests: true
skip_image: true
priority: 5
pool: large
labels: {team: risk}
aliases: [candidate]
"""


def test_every_key_is_an_option(tmp_path: Path) -> None:
    file = tmp_path / "build.yaml"
    file.write_text(EVERY_KEY)
    model, order = read_build_file(file, NAMES)
    assert model == "projects/p/models/churn"
    assert isinstance(order.source, GitSource)
    spec = build_spec(NAMES, order.source, order.options)
    left_out = {"source", "origin", "reproduces"}  # of a folder, and of a version built anew
    known = {field.name for field in build_pb2.BuildSpec.DESCRIPTOR.fields}
    assert {field.name for field, _ in spec.ListFields()} == known - left_out
    assert spec.params["rate"].float_value == 1e-3
    assert spec.git.secret == "projects/p/secrets/forge"
    assert spec.data[0].dataset_version == "projects/p/datasets/prices/versions/3"
    assert spec.resources.memory_bytes == 2 * 1024**3
    assert spec.timeouts[0].timeout.ToSeconds() == 7_200
    assert (spec.group, spec.pool) == ("g-1", "large")


def test_a_folder_is_beside_the_file(tmp_path: Path) -> None:
    file = tmp_path / "build.yaml"
    file.write_text("source: churn")
    (tmp_path / "churn").mkdir()
    model, order = read_build_file(file, NAMES)
    assert (model, order.source) == ("", tmp_path / "churn")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("model: churn", "line 1: must have either source or git"),
        ("source: .\nresource: {}", "line 2: resource is unknown; did you mean resources?"),
        ("source: .\ntimeouts: {trian: 1h}", "line 2: timeouts.trian is no phase"),
        ("source: .\nresources:\n  memory: much", "line 3: resources.memory is wrong: 'much'"),
        ("source: .\ndata: {train: newest prices}", "which only automations look up"),
        ("source: elsewhere", "is no folder beside the file"),
    ],
)
def test_what_is_wrong_is_told_with_its_line(tmp_path: Path, text: str, problem: str) -> None:
    file = tmp_path / "build.yaml"
    file.write_text(text)
    with pytest.raises(InvalidArgumentError, match=r"build\.yaml, line") as raised:
        read_build_file(file, NAMES)
    assert problem in raised.value.message
