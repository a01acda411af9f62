"""What deploy/ ships names only what exists."""

from __future__ import annotations

import dataclasses
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from services.artifact.settings import ArtifactSettings
from services.builder.settings import BuilderSettings
from services.builder.worker.settings import WorkerSettings
from services.common.server import ServerSettings
from services.common.service import SuiteSettings
from services.common.settings import load
from services.deployer.agent.settings import AgentSettings
from services.deployer.settings import DeployerSettings
from services.metadata.settings import MetadataSettings

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
READERS: list[tuple[str, Any]] = [
    ("MODELYARD_", SuiteSettings),
    ("MODELYARD_METADATA_", MetadataSettings),
    ("MODELYARD_ARTIFACT_", ArtifactSettings),
    ("MODELYARD_BUILDER_", BuilderSettings),
    ("MODELYARD_DEPLOYER_", DeployerSettings),
    ("MODELYARD_WORKER_", WorkerSettings),
    ("MODELYARD_AGENT_", AgentSettings),
    *(
        (f"MODELYARD_{service}_", ServerSettings)
        for service in ("METADATA", "ARTIFACT", "BUILDER", "DEPLOYER")
    ),
]


def _shipped() -> dict[str, str]:
    lines = (DEPLOY / "modelyard.env").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def test_every_shipped_variable_is_read_by_someone() -> None:
    known = {
        prefix + field.name.upper()
        for prefix, settings in READERS
        for field in dataclasses.fields(settings)
    }
    assert set(_shipped()) - known == set()


@pytest.mark.parametrize(("prefix", "settings"), READERS)
def test_every_process_can_read_its_settings(prefix: str, settings: Any) -> None:
    assert load(settings, prefix, _shipped())


def test_the_image_names_the_wheel_that_it_builds() -> None:
    project = tomllib.loads((ROOT / "clients/python/pyproject.toml").read_text())["project"]
    wheel = f"{project['name']}-{project['version']}-py3-none-any.whl"
    assert wheel in (DEPLOY / "Dockerfile").read_text()


@pytest.mark.parametrize("file", ["Dockerfile", "compose.yaml", "systemd/modelyard@.service"])
def test_every_module_that_is_started_exists(file: str) -> None:
    text = (DEPLOY / file).read_text().replace("services.%i", "services.metadata")
    for module in re.findall(r"-m,? (services[\w.]*)", text):
        assert (ROOT / module.replace(".", "/") / "__main__.py").is_file(), module


def test_the_proxy_knows_every_service_and_its_port() -> None:
    proxy = (DEPLOY / "envoy.yaml").read_text()
    for service in ("metadata", "artifact", "builder", "deployer"):
        port = _shipped()[f"MODELYARD_{service.upper()}_LISTEN"].rpartition(":")[2]
        assert f"prefix: /modelyard.{service}.v1. }}" in proxy
        assert f"port_value: {port} " in proxy.partition(f"cluster_name: {service}\n")[2][:200]
