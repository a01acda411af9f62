"""What deploy/ ships names only what exists."""

from __future__ import annotations

import base64
import dataclasses
import re
import tomllib
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import yaml
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.json_format import MessageToDict
from google.rpc import status_pb2
from modelyard.common.v1 import access_pb2

from services.artifact.settings import ArtifactSettings
from services.builder.settings import BuilderSettings
from services.builder.worker.leasing import Worker
from services.builder.worker.settings import WorkerSettings
from services.common.auth import MAX_CREDENTIAL
from services.common.processes.leaving import LEAVE_SECONDS
from services.common.rpc import status
from services.common.rpc.callers import FORWARDED, TRUST_DOMAIN
from services.common.rpc.limiting import rate_exceeded
from services.common.rpc.server import MAX_REQUEST_BYTES, ServerSettings
from services.common.rpc.turns import no_turn
from services.common.service import SuiteSettings
from services.common.settings import load
from services.deployer.agent.data_plane import STOP_SECONDS
from services.deployer.agent.settings import AgentSettings
from services.deployer.settings import DeployerSettings
from services.metadata.settings import MetadataSettings
from tests.servers.proxy import too_long

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
SERVICES = ("metadata", "artifact", "builder", "deployer")
FRAME = 5
"""Bytes before each message."""
OF_TLS = {
    "node",
    "transport_socket",
    "forward_client_cert_details",
    "set_current_client_cert_details",
}
"""What only the proxy with TLS has."""
ASKED = ("IntrospectCredential", "ReportStatus", "CreateGrant", "RecordSample")
"""What the suite's own processes call with the right of their callers, or of a controller."""
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
        place = ROOT / module.replace(".", "/")
        assert (place / "__main__.py").is_file() or place.with_suffix(".py").is_file(), module


def test_whoever_stops_a_process_gives_it_the_time_it_takes() -> None:
    server, worker = ServerSettings(), load(WorkerSettings, "MODELYARD_WORKER_", _shipped())
    longest = {
        "modelyard@": server.lame_duck_seconds + server.grace_seconds + LEAVE_SECONDS,
        "modelyard-worker": Worker.stop_seconds(worker) + LEAVE_SECONDS,
        "modelyard-agent": STOP_SECONDS + LEAVE_SECONDS,
    }
    for unit, seconds in longest.items():
        text = (DEPLOY / f"systemd/{unit}.service").read_text()
        (given,) = re.findall(r"^TimeoutStopSec=(\d+)$", text, re.MULTILINE)
        assert int(given) > seconds
        # Else builds and model servers are told to stop, too, behind the back of who runs them.
        assert ("KillMode=mixed" in text) == (unit != "modelyard@")
    for process in (*SERVICES, "worker", "agent"):
        container = _read("compose.yaml")["services"][process]
        assert int(container["stop_grace_period"].removesuffix("s")) > max(longest.values())
        assert container["init"] is True


def test_the_health_of_every_service_is_looked_at_where_it_listens() -> None:
    for service in SERVICES:
        look = _read("compose.yaml")["services"][service]["healthcheck"]["test"]
        assert look[:-1] == ["CMD", "python", "-m", "services.suite.health"]
        assert look[-1] == _shipped()[f"MODELYARD_{service.upper()}_LISTEN"]


@cache
def _read(file: str) -> dict[str, Any]:
    return dict(yaml.safe_load((DEPLOY / file).read_text()))


def _proxy(file: str = "envoy.yaml") -> dict[str, Any]:
    return dict(_read(file)["static_resources"])


def _http(file: str = "envoy.yaml") -> dict[str, Any]:
    (listener,) = _proxy(file)["listeners"]
    (chain,) = listener["filter_chains"]
    return dict(chain["filters"][0]["typed_config"])


def _route(path: str, *, beyond: bool) -> dict[str, Any]:
    """Return where the proxy sends a call."""
    return dict(_entry(path, beyond=beyond)["route"])


def _filters(path: str) -> dict[str, Any]:
    """Return which filters a call passes that others do not."""
    return dict(_entry(path, beyond=False).get("typed_per_filter_config", {}))


def _entry(path: str, *, beyond: bool) -> dict[str, Any]:
    """Return the first route that matches, as the proxy does."""
    (host,) = _http()["route_config"]["virtual_hosts"]
    for route in host["routes"]:
        match = route["match"]
        is_there = path == match.get("path") or path.startswith(match.get("prefix", path + "!"))
        if is_there and beyond in _shares(match):
            return dict(route)
    raise AssertionError(path)


def _shares(match: dict[str, Any]) -> tuple[bool, ...]:
    """Return whether what is beyond its share matches, and what is within."""
    if "headers" not in match:
        return (True, False)
    (header,) = match["headers"]
    assert header["name"] == "x-beyond-share"
    return (header.get("present_match", True),)


def test_the_proxy_knows_every_service_and_its_port() -> None:
    clusters = {cluster["name"]: cluster["load_assignment"] for cluster in _proxy()["clusters"]}
    for service in SERVICES:
        port = _shipped()[f"MODELYARD_{service.upper()}_LISTEN"].rpartition(":")[2]
        assert f"'port_value': {port}}}" in str(clusters[service])
        assert clusters[service] == clusters[f"{service}-lasting"]


def test_the_proxy_limits_unary_calls_and_what_lasts_not() -> None:
    for name in SERVICES:
        for service in _services_of(name):
            for method in service.methods:
                path = f"/{service.full_name}/{method.name}"
                lasts = method.client_streaming or method.server_streaming
                beyond, within = (_route(path, beyond=beyond) for beyond in (True, False))
                filters = _filters(path)
                if lasts:
                    assert beyond["cluster"] == within["cluster"] == f"{name}-lasting", path
                    assert "priority" not in within, path
                    assert not filters, path
                    continue
                own = _is_asked_by_processes(method)
                assert within["cluster"] == (f"{name}-lasting" if own else name), path
                assert beyond["cluster"] == name, path
                assert (beyond["priority"], within["priority"]) == ("DEFAULT", "HIGH")
                assert "max_stream_duration" in beyond, path
                assert "max_stream_duration" in within, path
                assert set(filters) == ({"buffer", "share"} if own else {"buffer"}), path


def _is_asked_by_processes(method: MethodDescriptor) -> bool:
    """Say whether the suite's own processes call it; whom a credential stands for all may ask."""
    access = method.GetOptions().Extensions[access_pb2.access]
    return bool(access.peers) or method.name in ASKED


def test_the_proxy_refuses_in_the_services_words() -> None:
    settings = ServerSettings()
    errors = (no_turn(), rate_exceeded(settings.calls_per_second, 1.0), too_long())
    for mapper, error in zip(_http()["local_reply_config"]["mappers"], errors, strict=True):
        text = mapper["body_format_override"]["text_format_source"]["inline_string"]
        assert text == error.message
        added = {h["header"]["key"]: h["header"]["value"] for h in mapper["headers_to_add"]}
        trailers = dict(status.trailers(error))
        details = base64.b64decode(str(added.pop(status.DETAILS_KEY)))
        expected = status_pb2.Status.FromString(trailers.pop(status.DETAILS_KEY))
        assert MessageToDict(status_pb2.Status.FromString(details)) == MessageToDict(expected)
        assert added == trailers | {"grpc-status": "8"}
    filters = {part["name"]: part["typed_config"] for part in _http()["http_filters"]}
    assert filters["buffer"]["max_request_bytes"] == MAX_REQUEST_BYTES + FRAME
    assert filters["rate"]["token_bucket"]["max_tokens"] == settings.burst
    assert filters["rate"]["token_bucket"]["tokens_per_fill"] == settings.calls_per_second
    assert filters["share"]["filter_enforced"]["default_value"]["numerator"] == 0
    script = filters["credential"]["default_source_code"]["inline_string"]
    assert f"#token > {MAX_CREDENTIAL}" in script


def test_the_proxy_with_tls_does_the_same() -> None:
    assert _without_tls(_read("envoy-tls.yaml")) == _without_tls(_read("envoy.yaml"))


def test_the_proxy_with_tls_knows_every_service_and_each_process_by_its_certificate() -> None:
    file = "envoy-tls.yaml"
    for cluster in _proxy(file)["clusters"]:
        shown = cluster["transport_socket"]["typed_config"]["common_tls_context"]
        trusted = shown["combined_validation_context"]["default_validation_context"]
        (name,) = trusted["match_typed_subject_alt_names"]
        service = cluster["name"].removesuffix("-lasting")
        assert name == {"san_type": "URI", "matcher": {"exact": TRUST_DOMAIN + service}}
    # Nobody but the proxy says whom it saw; who has a process's share was seen.
    assert _http(file)["forward_client_cert_details"] == "SANITIZE_SET"
    (host,) = _http(file)["route_config"]["virtual_hosts"]
    for route in host["routes"]:
        named = [h for h in route["match"].get("headers", ()) if h["name"] == FORWARDED]
        own = "share" in route.get("typed_per_filter_config", {})
        expected = {"name": FORWARDED, "string_match": {"contains": f"URI={TRUST_DOMAIN}"}}
        assert named == ([expected] if own else []), route["match"]


def _without_tls(part: Any) -> Any:
    """Return a part of a configuration without what TLS, and more than one machine, add to it."""
    if isinstance(part, list):
        return [
            _without_tls(item)
            for item in part
            if not isinstance(item, dict) or item.get("name") != FORWARDED
        ]
    if not isinstance(part, dict):
        return part
    kept = {key: _without_tls(value) for key, value in part.items() if key not in OF_TLS}
    if "socket_address" in kept:
        del kept["socket_address"]["address"]
    return kept


def _services_of(name: str) -> list[ServiceDescriptor]:
    package = f"modelyard.{name}.v1"
    folder = Path(import_module(package).__path__[0])
    modules = [import_module(f"{package}.{path.stem}") for path in folder.glob("*_service_pb2.py")]
    return [
        service for module in modules for service in module.DESCRIPTOR.services_by_name.values()
    ]


def test_nothing_foreign_gets_into_the_image_but_by_its_hash() -> None:
    docker = (DEPLOY / "Dockerfile").read_text().replace("\\\n", " ")
    steps = [step for line in docker.splitlines() for step in line.split("&&")]
    installs = [step for step in steps if "pip install" in step and not step.startswith("#")]
    assert len(installs) == 3
    for step in installs:
        assert "--require-hashes" in step or "--offline --no-deps" in step, step
    for lock in (ROOT / "requirements.lock", DEPLOY / "build.lock"):
        text = lock.read_text().replace("\\\n", " ")
        wanted = [line for line in text.splitlines() if line and not line.lstrip().startswith("#")]
        assert wanted
        for line in wanted:
            assert re.match(
                r"[a-z0-9._-]+(\[[a-z,]+\])?==\S+ .*--hash=sha256:[0-9a-f]{64}", line
            ), line
