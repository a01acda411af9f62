"""The command line as a person and as a program use it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.e2e.suite import SHARED, TINY, EmbeddedSuite, copy_source, until

MODELYARD = str(Path(sys.executable).with_name("modelyard"))


@pytest.fixture
def modelyard(embedded: EmbeddedSuite, tmp_path: Path) -> Runner:
    """The command line of a user with a configuration of his own."""
    return Runner({"MODELYARD_CONFIG": str(tmp_path / "config.toml")}, embedded)


class Runner:
    """Runs commands; keeps what they print."""

    def __init__(self, environment: dict[str, str], suite: EmbeddedSuite) -> None:
        self.environment = environment
        self.suite = suite

    def __call__(
        self, *arguments: str, status: int = 0, stdin: str | None = None
    ) -> subprocess.CompletedProcess[str]:
        own = {k: v for k, v in os.environ.items() if not k.startswith("MODELYARD_")}
        done = subprocess.run(
            [MODELYARD, *arguments],
            env={**own, **self.environment},
            capture_output=True,
            input=stdin,
            text=True,
            check=False,
            timeout=120,
        )
        assert done.returncode == status, done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        return done


def test_without_a_server_it_says_what_to_do(modelyard: Runner) -> None:
    assert "modelyard up" in modelyard("models", "list", status=1).stderr


@pytest.mark.slow  # it asks five times, for five seconds
@pytest.mark.parametrize("words", [("logs", "b-0123456789abcdef"), ("watch",)])
def test_what_is_followed_needs_a_server(modelyard: Runner, words: tuple[str, ...]) -> None:
    modelyard.environment |= {"MODELYARD_SERVER": "127.0.0.1:9", "MODELYARD_TOKEN": "x"}
    assert "cannot reach the server" in modelyard(*words, status=1).stderr


def test_bad_usage_is_status_two(modelyard: Runner) -> None:
    assert modelyard("deploy", status=2).stderr
    assert modelyard("no-such-command", status=2).stderr


def test_login_build_and_look_around(modelyard: Runner, tmp_path: Path) -> None:
    suite = modelyard.suite
    assert "token" in modelyard("login", suite.address, "--token", "wrong", status=1).stderr
    modelyard("login", suite.address, "--token", suite.token)

    assert "4711" not in modelyard("secrets", "set", "token", stdin="4711-4711\n").stdout
    assert "4711" not in modelyard("secrets", "show", "token", "-o", "json").stdout
    source, commit = changed_work_tree(tmp_path / "lines")
    options = ["--secret", "TOKEN=token", "--env", "COLOUR=red", "--label", "team=risk"]
    options += ["--timeout", "train=10m", "--memory", "1G"]
    built = modelyard("build", str(source), "--param", "level=4", *options)
    for words in ("✓ train", "✓ test", "✓ register", "lines/1", "training"):
        assert words in built.stdout
    (build,) = json.loads(modelyard("builds", "list", "-o", "json").stdout)[:1]
    assert build["state"] == "BUILD_STATE_SUCCEEDED"
    assert (build["spec"]["labels"], build["spec"]["variables"]) == (
        {"team": "risk"},
        {"COLOUR": "red"},
    )
    shown = modelyard("builds", "show", build["name"]).stdout
    recorded = ("https://git.example/team/lines.git", f"{commit} (changed) main")
    for words in ("level=4", "TOKEN=token", "COLOUR=red", "team=risk", *recorded):
        assert words in shown
    assert "a warning" in modelyard("logs", build["name"]).stdout
    narrowed = ("--grep", "^a warn", "--stream", "stderr", "--phase", "train", "--tail", "5")
    printed = modelyard("logs", build["name"], *narrowed, "--since", "1h").stdout
    assert printed.split("\n") == ["    a warning", ""]
    events = modelyard("logs", build["name"], "--grep", "^a warn", "-ojson").stdout.splitlines()
    assert [json.loads(e)["log"]["text"] for e in events if '"log"' in e] == ["a warning"]
    assert "RE2" in modelyard("logs", build["name"], "--grep", "(", status=1).stderr

    shown = json.loads(modelyard("versions", "show", "lines", "--output=json").stdout)
    assert shown["params"]["level"] == {"int_value": "4"}
    run = json.loads(modelyard("--output", "json", "runs", "show", shown["run"]).stdout)
    assert run["state"] == "RUN_STATE_SUCCEEDED"
    assert run["code"]["commit"] == commit
    assert "+# not committed yet" in run["code"]["diff"]
    modelyard("promote", "lines/1", "champion", "--reason", "the only one")
    assert "the only one" in modelyard("aliases", "history", "lines").stdout
    assert "lines/1" in modelyard("versions", "show", "lines@champion").stdout


def changed_work_tree(folder: Path) -> tuple[Path, str]:
    """Return the tiny model's folder as a git work tree with a change, and its commit."""
    copy_source(folder)

    def git(*arguments: str) -> str:
        who = ["-c", "user.name=t", "-c", "user.email=t@example.com"]
        command = ["git", *who, *arguments]
        done = subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True)
        return done.stdout.strip()

    git("init", "-q", "-b", "main")
    git("remote", "add", "origin", "https://u:4711-4711@git.example/team/lines.git")
    git("add", ".")
    git("commit", "-q", "-m", "first")
    with (folder / "model.py").open("a") as file:
        file.write("# not committed yet\n")
    return folder, git("rev-parse", "HEAD")


@contextmanager
def worker(modelyard: Runner, pool: str, folder: Path) -> Iterator[None]:
    """Have another worker, as on another machine, of a pool of its own."""
    tokens, address = modelyard.suite.layout.data / "tokens", modelyard.suite.address
    command = [MODELYARD, "worker", "--server", address, "--pool", pool, "--max", "4"]
    command += ["--token-file", str(tokens / "worker.token"), "--data", str(folder)]
    with (folder.parent / f"{pool}.log").open("wb") as log:
        process = subprocess.Popen(command, env={**os.environ, **SHARED}, stdout=log, stderr=log)
    try:
        yield
    finally:
        process.terminate()
        assert process.wait(60) == 0


def test_how_a_version_came_to_be_is_shown_and_repeated(modelyard: Runner, tmp_path: Path) -> None:
    modelyard("login", modelyard.suite.address, "--token", modelyard.suite.token)
    file = tmp_path / "build.yaml"
    file.write_text(f"model: again\nsource: {TINY}\nparams: {{level: 3}}\nlabels: {{team: risk}}\n")
    with worker(modelyard, "far", tmp_path / "far"):
        modelyard("build", "-f", str(file), "--param", "level=4", "--pool", "far", "--wait")
        with modelyard.suite.client() as client:
            (told,) = client.queue.workers(pool="far")
        assert told.max_builds == 4
        repeated = modelyard("reproduce", "again/1").stdout
    assert "again/1 is reproduced; every byte is the same" in repeated
    assert "again/2" not in modelyard("versions", "list", "again").stdout
    assert "team" in modelyard("versions", "show", "again").stdout
    listed = modelyard("builds", "list", "--filter", 'model = "again"').stdout
    for words in ("SUCCEEDED", "again/1", "level=4", "score=0.9", " passed"):
        assert words in listed
    assert re.search(r" passed +\d+(\.\d+)? m?s ", listed)  # how long it took
    shown = modelyard("versions", "show", "again").stdout
    for words in ("x FP64 [-1, 1]", "level FP64 [-1]", " passed", "sha256:"):
        assert words in shown
    statement = json.loads(modelyard("provenance", "again/1").stdout)
    assert statement["predicateType"] == "https://slsa.dev/provenance/v1"
    assert "testsuite" in modelyard("versions", "tests", "again/1").stdout
    layout = tmp_path / "image"
    modelyard("images", "export", "again/1", str(layout))
    assert (layout / "oci-layout").exists()
    based = ("images", "export", "again/1", str(tmp_path / "based"), "--base", str(tmp_path))
    assert "index.json" in modelyard(*based, status=1).stderr
    assert not (tmp_path / "based").exists()


def test_the_queue_is_seen_and_steered(modelyard: Runner) -> None:
    modelyard("login", modelyard.suite.address, "--token", modelyard.suite.token)
    assert "at most    0" in modelyard("builds", "limits", "held", "--max-running", "0").stdout
    pushed = json.loads(modelyard("push", str(TINY), "-o", "json").stdout)["name"]
    digest = pushed.rpartition("/")[2]
    order = ("build", digest, "--model", "held", "--no-follow")
    build = json.loads(modelyard(*order, "-o", "json").stdout)["name"]
    waits = "0 builds of projects/default/models/held run, of at most 0"
    shown = modelyard("builds", "show", build).stdout
    assert waits in shown
    assert pushed in shown
    assert "model limit" in modelyard("builds", "list", "--filter", 'model = "held"').stdout
    modelyard("builds", "cancel", build)
    assert "any" in modelyard("builds", "limits", "held", "--default").stdout
    refused = modelyard(*order, "--memory", "900T", status=1).stderr
    assert "no worker of the pool default has" in refused
    workers = modelyard("workers", "list").stdout
    assert "default" in workers
    assert "GiB disk" in workers


def test_the_audit_trail_is_read_kept_and_verified(modelyard: Runner, tmp_path: Path) -> None:
    modelyard("login", modelyard.suite.address, "--token", modelyard.suite.token)
    modelyard("projects", "create", "audited")

    def is_told() -> bool:
        listed = modelyard("audit", "list", "--method", "CreateProject", "-o", "json").stdout
        told = [entry.get("resource") for entry in json.loads(listed)]
        return "projects/audited" in told

    until(is_told, what="the entry to be sealed")
    assert "projects/audited" in modelyard("audit", "list", "--resource", "audited").stdout
    heads, copy = tmp_path / "heads.json", tmp_path / "trail.jsonl"
    assert "sound" in modelyard("audit", "verify", "--heads", str(heads)).stdout
    modelyard("audit", "verify", "--heads", str(heads))
    modelyard("audit", "export", str(copy))
    exported = [json.loads(line) for line in copy.read_text().splitlines()]
    assert {entry["service"] for entry in exported} >= {"metadata"}
    known = json.loads(heads.read_text())
    known["metadata"]["sequence"] += 1_000
    heads.write_text(json.dumps(known))
    assert "cut" in modelyard("audit", "verify", "--heads", str(heads), status=1).stdout


def test_a_worker_that_cannot_join_says_why(modelyard: Runner, tmp_path: Path) -> None:
    token = tmp_path / "worker.token"
    token.write_text("wrong")
    token.chmod(0o644)
    asked = ("worker", "--server", modelyard.suite.address)
    assert "--token-file" in modelyard(*asked, status=2).stderr
    missing = str(tmp_path / "missing")
    assert "No such file" in modelyard(*asked, "--token-file", missing, status=2).stderr
    readable = modelyard(*asked, "--token-file", str(token), status=2).stderr
    assert "everybody may read this secret" in readable
    token.chmod(0o600)
    own = (*asked, "--token-file", str(token), "--data", str(tmp_path / "data"))
    assert "no pool" in modelyard(*own, "--pool", "No Pool", status=2).stderr
    assert "refused the worker" in modelyard(*own, "--max", "2", status=1).stderr


def test_push_and_pull_give_the_same_bytes(modelyard: Runner, tmp_path: Path) -> None:
    modelyard("login", modelyard.suite.address, "--token", modelyard.suite.token)
    folder = tmp_path / "tree"
    (folder / "a").mkdir(parents=True)
    (folder / "a" / "ünïcode.bin").write_bytes(os.urandom(3_000_000))
    (folder / "empty").touch()
    pushed = json.loads(modelyard("push", str(folder), "-o", "json").stdout)
    modelyard("pull", pushed["name"], str(tmp_path / "back"))
    for path in ("a/ünïcode.bin", "empty"):
        assert (tmp_path / "back" / path).read_bytes() == (folder / path).read_bytes()


def test_what_does_not_exist_is_named(modelyard: Runner) -> None:
    modelyard("login", modelyard.suite.address, "--token", modelyard.suite.token)
    assert "does not exist" in modelyard("versions", "show", "nothing/9", status=1).stderr
    assert modelyard("deploy", "nothing/9", "--env", "nowhere", status=1).stderr
