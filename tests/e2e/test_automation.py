"""The example's promise, kept by a real suite: live only if F1 > 0.7 and better than live."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.suite import TINY, EmbeddedSuite

MODELYARD = str(Path(sys.executable).with_name("modelyard"))
EXAMPLE = Path(__file__).parents[2] / "examples/automation/daily.yaml"


@pytest.fixture
def daily(embedded: EmbeddedSuite, tmp_path: Path) -> Daily:
    return Daily(embedded, tmp_path / "daily.yaml")


class Daily:
    """The example's file for a model that builds in a moment, and commands about it."""

    def __init__(self, suite: EmbeddedSuite, file: Path) -> None:
        self.suite = suite
        self.file = file

    def write(self, score: float) -> None:
        text = EXAMPLE.read_text().replace("f1", "score").replace("production", "automated")
        text = text.replace("model: breast-cancer", "model: automated")
        text = text.replace("../breast-cancer", os.path.relpath(TINY, self.file.parent))
        self.file.write_text(text.replace("algorithm: forest", f"score: {score}"))

    def __call__(self, *arguments: str, status: int = 0) -> str:
        environment = {
            **os.environ,
            "MODELYARD_SERVER": self.suite.address,
            "MODELYARD_TOKEN": self.suite.token,
        }
        done = subprocess.run(
            [MODELYARD, "automations", *arguments],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert done.returncode == status, done.stdout + done.stderr
        return done.stdout + done.stderr


def test_live_only_if_good_enough(daily: Daily) -> None:
    with daily.suite.client() as client:
        client.environments.create("automated")
    daily.write(0.65)
    applied = daily("apply", "-f", str(daily.file))
    assert "cron 30 2 * * * Europe/Berlin" in applied
    refused = daily("run", "daily", "--key", "monday", "--wait")
    assert "SKIPPED" in refused
    assert "metrics.score 0.65 is below 0.7" in refused

    daily.write(0.8)
    daily("apply", "-f", str(daily.file))
    live = daily("run", "daily", "--key", "tuesday", "--wait")
    assert "automated/2 is live in automated (revision 1)" in live
    assert daily.suite.predict("automated", "automated")["model_version"] == "2"
    # Whoever asks again for the same day gets the same answer, and nothing happens.
    assert daily("run", "daily", "--key", "tuesday", "--wait") == live
    with daily.suite.client() as client:
        history = [e.explanation for e in client.automations.executions("daily")]
        client.automations.delete("daily")
    assert len(history) == 2
