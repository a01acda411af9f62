"""What a spec may ask for, done by a real worker: git, hashes, data, variables, secrets, times."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from modelyard import AsyncClient, GitSource
from modelyard.builder.v1 import build_pb2

from tests.contract.builder.stack import Stack
from tests.contract.builder.test_worker import ended, events, no_work_is_left
from tests.git_server import GitServer, serving

ROOT = Path(__file__).resolve().parents[3]
TOKEN = 'tok"en/ü-4711'
GIT_TOKEN = "let-me-in-0815"
MODEL = """
import base64
import json
import os
import pathlib
import sys

import modelyard
import semver


class Churn(modelyard.Model):
    example = {"x": [1.0, 2.0]}

    def build(self, context):
        token = os.environ["TOKEN"]
        print("told", token, repr(token), json.dumps(token), os.environ["FLAVOUR"])
        print("coded", base64.b64encode(b"x" + token.encode()).decode())
        print("x" * 16_380 + token, file=sys.stderr)
        assert token.encode() not in pathlib.Path("/proc/1/cmdline").read_bytes()
        rows = context.data("train") / "rows.csv"
        self.rows = len(rows.read_text().splitlines())
        modelyard.log_metric("rows", self.rows)
        try:
            (rows.parent / "more.csv").write_text("x")
        except OSError:
            print("read-only")

    def predict(self, inputs):
        assert "TOKEN" not in os.environ
        return {"y": inputs["x"] * self.rows}
"""
TESTS = """
import os

from model import Churn


def test_it():
    assert os.environ["TOKEN"] and os.listdir(os.environ["MODELYARD_DATA"]) == ["train"]
"""


def locked(name: str) -> str:
    """Return a package's version and hashes, as the suite itself is locked."""
    text = (ROOT / "requirements.lock").read_text()
    found = re.search(rf"^{name}==.*(\n    --hash.*)+", text, re.MULTILINE)
    assert found is not None
    return found[0] + "\n"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[GitServer]:
    with serving(tmp_path / "repository") as server:
        server.credentials = f"git:{GIT_TOKEN}"
        yield server


async def dataset(client: AsyncClient, folder: Path) -> str:
    """Register a dataset whose bytes are stored."""
    artifact = await client.artifacts.push(folder / "rows.csv")
    version = await client.datasets.create_version("prices", "a" * 64, artifact=artifact)
    return version.name


def holding(folder: Path, *texts: str) -> list[Path]:
    """Find the files that hold one of the texts."""
    wanted = [text.encode() for text in texts]
    files = [path for path in folder.rglob("*") if path.is_file()]
    return [path for path in files if any(text in path.read_bytes() for text in wanted)]


async def test_a_build_of_a_repository_with_data_and_secrets(
    stack: Stack, environments: Path, server: GitServer
) -> None:
    tree = {
        "models/churn/model.py": MODEL,
        "models/churn/test_churn.py": TESTS,
        "models/churn/requirements.lock": locked("semver"),
        "README.md": "not of the source",
    }
    commit = server.commit(tree)
    (stack.data / "rows.csv").write_text("a\nb\nc\n")
    git = GitSource(server.url, "main", "models/churn", secret="git-token")
    async with (
        stack.client() as client,
        stack.worker(environments=environments, git_http="1"),
    ):
        await client.secrets.set("token", TOKEN)
        await client.secrets.set("git-token", GIT_TOKEN)
        prices = await dataset(client, stack.data)
        order = await client.builds.create(
            git,
            data={"train": "prices/1"},
            variables={"FLAVOUR": "vanilla", "self": "1", "arguments": "2"},
            secrets={"TOKEN": "token"},
            labels={"team": "risk"},
        )
        server.commit({"README.md": "the branch moves on"}, branch="other")
        log = await events(client, order.name)
        build = await ended(client, order.name)
        assert build.state == build_pb2.BUILD_STATE_SUCCEEDED, build
        assert build.model.endswith("/churn")
        assert (build.origin.commit, build.origin.branch) == (commit, "main")
        files = {file.path for file in await client.artifacts.files(build.source)}
        assert files == {"model.py", "test_churn.py", "requirements.lock"}
        run = await client.runs.get(build.run)
        assert (run.code.commit, run.code.snapshot) == (commit, build.source)
        assert [(use.role, use.dataset_version) for use in run.datasets] == [("train", prices)]
        assert run.metrics[0].last == 3.0
        version = await client.versions.get(build.version)
        assert version.tests_passed
        lock = await client.artifacts.read(build.version, "environment/requirements.lock")
        lines = lock.decode().splitlines()
        assert all(" --hash=sha256:" in line for line in lines)
        assert re.findall(r"sha256:\w+", locked("semver")) == [
            found
            for line in lines
            if line.startswith("semver==")
            for found in re.findall(r"sha256:\w+", line)
        ]
        await no_work_is_left(stack)
    texts = [event.log.text for event in log if event.HasField("log")]
    assert 'told *** *** "***" vanilla' in [text.replace("'", "") for text in texts]
    assert "read-only" in texts
    assert any(text.startswith("coded ") and "***" in text for text in texts)
    assert not holding(stack.data / "worker", "a\nb\nc\n")
    assert not holding(stack.data, TOKEN, GIT_TOKEN)
    said = "".join(texts)
    assert not [part for part in (TOKEN, GIT_TOKEN, "4711", "0815") if part in said]


def packs(stack: Stack) -> list[Path]:
    """Find where bytes are stored by now."""
    return [path for path in (stack.data / "artifact").rglob("packs/**/*") if path.is_file()]


async def test_what_cannot_be_provided_says_what_is_missing(
    stack: Stack, environments: Path, tmp_path: Path
) -> None:
    (stack.data / "rows.csv").write_text("a\nb\nc\n")
    source = tmp_path / "churn"
    source.mkdir()
    (source / "model.py").write_text(MODEL)
    lock = re.sub(r"sha256:\w{8}", "sha256:00000000", locked("semver"))
    (source / "wrong.lock").write_text(lock)
    (source / "conflict.txt").write_text("semver==3.0.2\nsemver==3.0.1\n")
    async with stack.client() as client, stack.worker(environments=environments):
        await client.secrets.set("token", TOKEN)
        await dataset(client, stack.data)
        stored = packs(stack)
        create = client.builds.create
        orders = [
            await create(source, requirements="wrong.lock"),
            await create(source, requirements="conflict.txt"),
            await create(source, requirements="no.txt"),
            await create(source, python_version="3.99"),
            await create(source, timeouts={"environment": 0.001}),
            await create(source, timeouts={"provision": 0.001}),
            await create(source, data={"train": "prices/1"}, priority=-1),
            await create(source, secrets={"TOKEN": "token"}, priority=-1),
        ]
        await client.secrets.delete("token")
        assert stored
        for path in stored:
            path.write_bytes(path.read_bytes()[:-1])
        failures = [(await ended(client, order.name)).failure for order in orders]
    found = [(failure.reason, failure.message) for failure in failures]
    for (reason, message), (expected, part) in zip(
        found,
        [
            ("ENVIRONMENT_FAILED", "(?i)hash mismatch"),
            ("ENVIRONMENT_FAILED", r"semver==3\.0\.[12]"),
            ("SOURCE_INVALID", r"the source has no no\.txt"),
            ("ENVIRONMENT_FAILED", r"Python 3\.99 is not on this worker"),
            ("TIMEOUT", r"the environment phase took longer than 0\.001 seconds"),
            ("TIMEOUT", r"the provision phase took longer than 0\.001 seconds"),
            ("DATA_MISSING", "'train', projects/default/datasets/prices/versions/1: "),
            ("SECRET_MISSING", "secrets/token does not exist"),
        ],
        strict=True,
    ):
        assert reason == expected, message
        assert re.search(part, message), message
