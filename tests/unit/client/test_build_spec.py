"""A build order from Python's values and from the command line's."""

from __future__ import annotations

from datetime import timedelta

import pytest
from modelyard import GitSource
from modelyard._build_spec import BuildOptions, build_spec, model_of
from modelyard._names import Names
from modelyard.builder.v1 import build_pb2
from modelyard.cli import amounts
from modelyard.errors import InvalidArgumentError

NAMES = Names("shop")
SOURCE = "projects/shop/artifacts/" + "a" * 64


def test_every_option_has_its_place_in_the_message() -> None:
    options: BuildOptions = {
        "entry": "model:Churn",
        "params": {"level": 2},
        "requirements": "deps/base.txt",
        "python_version": "3.12",
        "data": {"train": "prices/3"},
        "variables": {"OMP_NUM_THREADS": "1"},
        "secrets": {"TOKEN": "warehouse"},
        "resources": {"cpu": 0.5, "memory": 2 * 1024**3, "disk": 1e9, "processes": 64},
        "timeouts": {"train": 7_200, "test": timedelta(minutes=5)},
        "retries": {"out_of_memory": 1, "worker_lost": 0},
        "network": True,
        "skip_tests": True,
        "skip_image": True,
        "priority": 5,
        "pool": "gpu",
        "group": "sweep",
        "aliases": ["candidate"],
        "labels": {"team": "risk"},
    }
    spec = build_spec(NAMES, SOURCE, options)
    missing = {field.name for field in build_pb2.BuildSpec.DESCRIPTOR.fields} - {
        field.name for field, _ in spec.ListFields()
    }
    assert missing == {"git", "origin", "reproduces"}  # which `builds.reproduce` sets
    assert spec.params["level"].int_value == 2
    assert spec.data[0].dataset_version == "projects/shop/datasets/prices/versions/3"
    assert spec.secrets[0].secret == "projects/shop/secrets/warehouse"
    assert spec.resources.memory_bytes == 2 * 1024**3
    assert [(t.phase, t.timeout.seconds) for t in spec.timeouts] == [
        (build_pb2.PHASE_KIND_TRAIN, 7_200),
        (build_pb2.PHASE_KIND_TEST, 300),
    ]
    assert spec.retries.HasField("worker_lost")
    assert build_spec(NAMES, SOURCE, {}) == build_pb2.BuildSpec(source=SOURCE)


@pytest.mark.parametrize(
    "options",
    [
        {"timeouts": {"training": 1}},
        {"resources": {"gpu": 1}},
        {"retries": {"bug": 1}},
        {"data": {"train": "prices"}},
        {"secrets": {"TOKEN": "Not An Id"}},
    ],
)
def test_what_no_order_has_is_refused(options: BuildOptions) -> None:
    with pytest.raises(InvalidArgumentError):
        build_spec(NAMES, SOURCE, options)


def test_a_repository_names_its_model() -> None:
    git = GitSource("https://git.example/team/Churn.git", "main", secret="git-token")
    message = build_spec(NAMES, git, {}).git
    assert (message.ref, message.secret) == ("main", "projects/shop/secrets/git-token")
    assert model_of(git) == "churn"
    assert model_of(GitSource(git.url, subdirectory="models/fraud")) == "fraud"


def test_amounts_as_people_write_them() -> None:
    assert [amounts.size(text) for text in ("2G", "512MiB", "1.5k", "7")] == [
        2 * 1024**3,
        512 * 1024**2,
        1536,
        7,
    ]
    assert [amounts.duration(text) for text in ("90s", "1.5h", "2d", "7")] == [90, 5400, 172800, 7]
    assert amounts.values(["a=1", "b=x=y", "c=[1]"]) == {"a": 1, "b": "x=y", "c": [1]}
    for read, text in ((amounts.size, "2X"), (amounts.duration, "soon")):
        with pytest.raises(InvalidArgumentError):
            read(text)
    with pytest.raises(InvalidArgumentError):
        amounts.pairs(["novalue"])
