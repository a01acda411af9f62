"""Write docs/limits.md from the limits in the code: `python -m scripts.limits_table`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from services.artifact import domain as artifact
from services.artifact.http.door import HttpBounds
from services.builder import domain as builds
from services.builder import event_codec as events
from services.builder import spec
from services.builder.automations import domain as automations
from services.builder.secrets import domain as secrets
from services.common import auth
from services.common.listing import filter_syntax, pagination
from services.common.rpc import interceptors, server
from services.deployer import codec as deployments
from services.deployer.environments import gate_codec as gates
from services.deployer.rollouts import plan_codec, plans
from services.metadata import limits

ROOT = Path(__file__).resolve().parent.parent
TARGET = ROOT / "docs" / "limits.md"
SERVER = server.ServerSettings()
HTTP = HttpBounds()

HEAD = """# Limits

Written by `python -m scripts.limits_table` from the code that enforces them. What is malformed
or too long is INVALID_ARGUMENT and names the field; what is too much is RESOURCE_EXHAUSTED
`LIMIT_EXCEEDED` with `limit` and `maximum`, and with a `RetryInfo` where waiting helps. Limits in
capitals are settings of a server (beside `MODELYARD_LISTEN`, or `MODELYARD_<SERVICE>_LISTEN`) and
hold for each process: `n` replicas allow `n` times as much. What the proxy allows stands in its
file, under the name that is given, and holds for each proxy: for all replicas behind it together.
"""


def _of_the_proxy() -> list[tuple[str, object]]:
    """Read the limits out of the shipped proxy's configuration."""
    proxy = yaml.safe_load((ROOT / "deploy" / "envoy.yaml").read_text())["static_resources"]
    http: Any = proxy["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"]
    filters = {part["name"]: part["typed_config"] for part in http["http_filters"]}
    rate, share = (filters[name]["token_bucket"] for name in ("rate", "share"))
    process = _share_of_processes(http)
    breakers = proxy["clusters"][0]["circuit_breakers"]["thresholds"]
    at_once = {breaker["priority"]: breaker["max_requests"] for breaker in breakers}
    return [
        ("Calls of a credential a second, `rate`", rate["tokens_per_fill"]),
        ("Calls of a credential at once after a rest, `rate`", rate["max_tokens"]),
        ("Calls of a credential a second that are its share, `share`", share["tokens_per_fill"]),
        ("Its share at once after a rest, `share`", share["max_tokens"]),
        (
            "Calls of a process of the suite a second, to one RPC, `process`",
            process["tokens_per_fill"],
        ),
        ("Such calls at once after a rest, `process`", process["max_tokens"]),
        ("Unary calls within shares that a service has at once, `max_requests`", at_once["HIGH"]),
        (
            "Unary calls beyond shares that a service has at once, `max_requests`",
            at_once["DEFAULT"],
        ),
    ]


def _share_of_processes(http: dict[str, Any]) -> dict[str, Any]:
    (host,) = http["route_config"]["virtual_hosts"]
    own = (route.get("typed_per_filter_config", {}).get("share") for route in host["routes"])
    return dict(next(share["token_bucket"] for share in own if share))


SECTIONS: dict[str, list[tuple[str, object]]] = {
    "Calls": [
        ("Bytes of a request message", server.MAX_REQUEST_BYTES),
        ("Bytes of a call's metadata", server.MAX_METADATA_BYTES),
        ("Characters of a credential", auth.MAX_CREDENTIAL),
        ("Characters of a request id", auth.MAX_REQUEST_ID),
        ("Seconds of a unary call, at most", interceptors.UNARY_SECONDS),
        ("Seconds of a stream, at most", interceptors.STREAM_SECONDS),
        ("Calls and streams of a process", server.MAX_CONCURRENT_CALLS),
        ("Unary calls that each service works on at once, `CALLS_AT_ONCE`", SERVER.calls_at_once),
        ("Unary calls that wait for it, `CALLS_WAITING`", SERVER.calls_waiting),
        ("Calls of a principal a second, `CALLS_PER_SECOND`", SERVER.calls_per_second),
        ("Calls of a principal at once after a rest, `BURST`", SERVER.burst),
        (
            "Streams and uploads of a principal, `STREAMS_OF_A_PRINCIPAL`",
            SERVER.streams_of_a_principal,
        ),
        (
            "Unary calls of a principal that do not come, `AWAITED_REQUESTS_OF_A_PRINCIPAL`",
            SERVER.awaited_requests_of_a_principal,
        ),
        ("Seconds for the next chunks of an upload, `MESSAGE_SECONDS`", SERVER.message_seconds),
    ],
    "At the proxy (deploy/envoy.yaml, operations.md)": _of_the_proxy(),
    "Files over HTTP (operations.md)": [
        ("Connections of a process", HTTP.connections),
        ("Seconds of a connection between requests, or before the first", HTTP.idle_seconds),
        ("Seconds in which a reader takes nothing of an answer", HTTP.still_seconds),
        ("Seconds for TLS to begin", HTTP.handshake_seconds),
    ],
    "Names, lists and filters": [
        ("Characters of an id (`[a-z]([a-z0-9-]*[a-z0-9])?`)", 63),
        ("Items of a page (more is cut; 0 asks for 50)", 1_000),
        ("Characters of a page token or cursor", pagination.MAXIMUM_TOKEN_LENGTH),
        ("Characters of a filter or order", filter_syntax.MAXIMUM_LENGTH),
        ("Depth of a filter", filter_syntax.MAXIMUM_DEPTH),
        ("Comparisons of a filter", filter_syntax.MAXIMUM_COMPARISONS),
        ("Fields of an order", filter_syntax.MAXIMUM_ORDER_TERMS),
    ],
    "Models, versions and runs": [
        ("Characters of a display name", limits.DISPLAY_NAME),
        ("Characters of a description", limits.DESCRIPTION),
        ("Labels or tags", limits.LABELS),
        ("Characters of a label's key", limits.LABEL_KEY),
        ("Characters of a label's value", limits.LABEL_VALUE),
        ("Characters of a version's label", limits.VERSION_LABEL),
        ("Characters of a card", limits.CARD),
        ("Characters of a licence", limits.LICENSE),
        ("Characters of an image's name", limits.IMAGE),
        ("Characters of a reason", limits.REASON),
        ("Characters of a failure's message", limits.FAILURE_MESSAGE),
        ("Characters of a parameter's or metric's key", limits.KEY),
        ("Characters of a parameter's text", limits.VALUE_TEXT),
        ("Items of a parameter's list", limits.LIST_VALUES),
        ("Depth of a parameter's lists", limits.LIST_DEPTH),
        ("Characters of a principal", limits.PRINCIPAL),
    ],
    "Artifacts": [
        ("Bytes of a chunk", artifact.CHUNK_BYTES),
        ("Files of an artifact", artifact.FILES_PER_ARTIFACT),
        ("Bytes of a path", artifact.PATH_BYTES),
        ("Bytes of a part of a path", artifact.PART_BYTES),
        ("Bytes of a manifest", artifact.MANIFEST_BYTES),
        ("Chunks of a file", artifact.CHUNKS_PER_FILE),
        ("Digests of a call", artifact.DIGESTS_PER_CALL),
        ("Holds of a call", artifact.HOLDS_PER_CALL),
        ("Characters of a holder", artifact.HOLDER_CHARACTERS),
    ],
    "Builds": [
        ("Parameters", spec.MAX_PARAMS),
        ("Labels", spec.MAX_LABELS),
        ("Aliases", spec.MAX_ALIASES),
        ("Data", spec.MAX_DATA),
        ("Variables", spec.MAX_VARIABLES),
        ("Secrets of a build", spec.MAX_SECRETS),
        ("Secrets of a project", secrets.MAX_SECRETS_OF_A_PROJECT),
        ("Bytes of a secret", secrets.MAX_VALUE_BYTES),
        ("Bytes of a difference of code", spec.MAX_DIFF_BYTES),
        ("Days of a phase", spec.MAX_PHASE_TIMEOUT.days),
        ("Attempts", builds.MAX_ATTEMPTS),
        ("Bytes of a batch of events", builds.MAX_BATCH_BYTES),
        ("Lines that a tail begins with", events.MAX_TAIL),
        ("Automations of a project", automations.MAX_AUTOMATIONS),
        ("Conditions of an automation", automations.MAX_CONDITIONS),
    ],
    "Deployments": [
        ("Characters of a description", deployments.MAX_DESCRIPTION),
        ("Characters of a reason", deployments.MAX_REASON),
        ("Gates of an environment", gates.MAX_GATES),
        ("Approvals that a gate asks for", gates.MAX_APPROVALS),
        ("Steps of a rollout", plans.MAX_STEPS),
        ("Replicas of a version", plan_codec.MAX_COUNT),
        ("Requests of a replica at a time", plan_codec.MAX_CONCURRENCY),
        ("Requests that wait for a replica", plan_codec.MAX_QUEUE),
        ("Requests predicted together", plan_codec.MAX_CONCURRENCY),
        ("Sampled rows that make a dataset version", plan_codec.MAX_SAMPLE_ROWS),
        ("Rows that a replica samples in a second", plan_codec.MAX_SAMPLE_RATE),
    ],
}


def table() -> str:
    """Return the page."""
    parts = [HEAD]
    for title, rows in SECTIONS.items():
        lines = [f"| {what} | {value:,.0f} |" for what, value in rows]
        parts.append(
            "\n".join((f"## {title}", "| limit | at most |", "| --- | ---: |", *lines, ""))
        )
    return "\n".join(parts)


if __name__ == "__main__":
    TARGET.write_text(table())
