"""Routing: which requests go to which model servers, and how Envoy is told.

`render` is pure. An environment is one port for HTTP and gRPC. HTTP requests are routed by their
path, gRPC requests by the header `modelyard-model`; where a client does not send it, `peek.lua`
reads the model's name from the message, which Envoy holds whole for that: gRPC requests without
the header may have at most MAX_PEEKED_BYTES, and must not be compressed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import grpc

from services.deployer.agent.model_server import Ports
from services.deployer.rollouts.plans import EVERYTHING, HeaderMatch

MAX_PEEKED_BYTES = 64 * 1024 * 1024
PREDICTION_SECONDS = 300.0
IDLE_TIMEOUT = "3600s"
"""Longer than any prediction may take."""
MODEL_HEADER = "modelyard-model"
UNKNOWN_MODEL = "this model is not served here"
_TOO_LARGE = (
    f"a request of more than {MAX_PEEKED_BYTES} bytes must name its model in the header "
    f"{MODEL_HEADER}"
)
_SERVICE = "/inference.GRPCInferenceService"
_SERVER_METHODS = ("ServerLive", "ServerReady", "ServerMetadata")
_MODEL_METHODS = ("ModelInfer", "ModelReady", "ModelMetadata")
_HTTP_METHODS = ("DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT")
_TYPES = "type.googleapis.com/envoy"
_FILTERS = f"{_TYPES}.extensions.filters"
_HTTP_OPTIONS = f"{_TYPES}.extensions.upstreams.http.v3.HttpProtocolOptions"
_PEEK = files(__package__).joinpath("peek.lua").read_text()

Json = dict[str, Any]
_PREVIOUS_HOSTS = f"{_TYPES}.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate"


@dataclass(frozen=True, slots=True)
class Backend:
    """A variant: its model servers, its share of the model's requests, and of their copies."""

    id: str
    ports: tuple[Ports, ...]
    weight: int
    mirror_percent: int = 0
    timeout_seconds: float = PREDICTION_SECONDS
    """How long a request may take when this variant is the one with most of them."""
    header_match: HeaderMatch | None = None
    """What requests have that are this variant's, whatever the weights."""


@dataclass(frozen=True, slots=True)
class Route:
    """A model and the servers that answer for it."""

    model: str
    backends: tuple[Backend, ...]


@dataclass(frozen=True, slots=True)
class Listener:
    """An environment, the port its predictions are served on, and its models."""

    environment: str
    port: int
    routes: tuple[Route, ...] = ()
    host: str = "127.0.0.1"

    @property
    def key(self) -> str:
        """Return the environment as a name for Envoy's statistics and files."""
        return stat_name(self.environment)


@dataclass(frozen=True, slots=True)
class Resources:
    """What Envoy is told: clusters and listeners, and the routes and scopes of each listener."""

    clusters: tuple[Json, ...]
    listeners: tuple[Json, ...]
    routes: dict[str, Json]
    scopes: dict[str, tuple[Json, ...]]


def stat_name(name: str) -> str:
    """Return a resource name without the characters that Envoy splits or replaces."""
    return name.replace("/", "_").replace(".", "_")


def cluster_names(backend_id: str) -> tuple[str, str]:
    """Return the names of a backend's HTTP and gRPC cluster."""
    key = stat_name(backend_id)
    return f"{key}_http", f"{key}_grpc"


def render(listeners: Iterable[Listener], folder: Path) -> Resources:
    """Say all of it in Envoy's words; each listener's routes lie in `folder`/routes-{key}.json."""
    wanted = tuple(listeners)
    backends = {b.id: b for listener in wanted for r in listener.routes for b in r.backends}
    return Resources(
        clusters=tuple(cluster for b in backends.values() for cluster in _clusters(b)),
        listeners=tuple(_listener(listener, folder) for listener in wanted),
        routes={listener.key: _route_configuration(listener) for listener in wanted},
        scopes={listener.key: _scopes(listener.key) for listener in wanted},
    )


def routes_file(folder: Path, key: str) -> Path:
    """Return the file that holds a listener's routes."""
    return folder / f"routes-{key}.json"


def scopes_file(folder: Path, key: str) -> Path:
    """Return the file that holds the scopes of a listener's routes; it never changes."""
    return folder / f"scopes-{key}.json"


def file_source(path: Path) -> Json:
    """Return a configuration source that watches a file."""
    return {"resource_api_version": "V3", "path_config_source": {"path": str(path)}}


def _clusters(backend: Backend) -> tuple[Json, Json]:
    http_name, grpc_name = cluster_names(backend.id)
    return (
        _cluster(http_name, [p.http for p in backend.ports], {"http_protocol_options": {}}),
        _cluster(grpc_name, [p.grpc for p in backend.ports], {"http2_protocol_options": {}}),
    )


def _cluster(name: str, ports: list[int], protocol: Json) -> Json:
    limits = {"max_connections": 4096, "max_pending_requests": 4096}
    limits |= {"max_requests": 4096, "max_retries": 1024}
    return {
        "@type": f"{_TYPES}.config.cluster.v3.Cluster",
        "name": name,
        "type": "STATIC",
        "connect_timeout": "2s",
        "circuit_breakers": {"thresholds": [limits]},
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [{"lb_endpoints": [_endpoint(port) for port in ports]}],
        },
        "lb_policy": "LEAST_REQUEST",
        # A model server that only fails is left out for a while, but never the last half.
        "outlier_detection": {
            "consecutive_5xx": 20,
            "consecutive_gateway_failure": 5,
            "enforcing_consecutive_gateway_failure": 100,
            "interval": "1s",
            "base_ejection_time": "5s",
            "max_ejection_percent": 50,
            "enforcing_success_rate": 0,
        },
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": _HTTP_OPTIONS,
                "common_http_protocol_options": {"idle_timeout": "60s"},
                "explicit_http_config": protocol,
            }
        },
    }


def _endpoint(port: int) -> Json:
    address = {"socket_address": {"address": "127.0.0.1", "port_value": port}}
    return {"endpoint": {"address": address}}


def _listener(listener: Listener, folder: Path) -> Json:
    address = {"address": listener.host, "port_value": listener.port}
    network_filter = {
        "name": "envoy.filters.network.http_connection_manager",
        "typed_config": _connection_manager(listener.key, folder),
    }
    return {
        "@type": f"{_TYPES}.config.listener.v3.Listener",
        "name": listener.key,
        "address": {"socket_address": address},
        "enable_reuse_port": False,  # a taken port is an error, never shared with a stranger
        "filter_chains": [{"filters": [network_filter]}],
    }


def _connection_manager(key: str, folder: Path) -> Json:
    return {
        "@type": f"{_FILTERS}.network.http_connection_manager.v3.HttpConnectionManager",
        "codec_type": "AUTO",
        "stat_prefix": key,
        "scoped_routes": {
            "name": key,
            "scope_key_builder": {
                "fragments": [{"header_value_extractor": {"name": ":method", "index": 0}}]
            },
            "rds_config_source": file_source(routes_file(folder, key)),
            "scoped_rds": {"scoped_rds_config_source": file_source(scopes_file(folder, key))},
        },
        "http_filters": [
            {
                # First: whoever comes after it sees the variant that a request was routed to.
                "name": "envoy.filters.http.lua",
                "typed_config": {"@type": f"{_FILTERS}.http.lua.v3.Lua"},
            },
            {
                # Counts by gRPC status, of each variant: HTTP has 200 for all of them.
                "name": "envoy.filters.http.grpc_stats",
                "typed_config": {
                    "@type": f"{_FILTERS}.http.grpc_stats.v3.FilterConfig",
                    "stats_for_all_methods": False,
                },
            },
            {
                "name": "envoy.filters.http.router",
                "typed_config": {"@type": f"{_FILTERS}.http.router.v3.Router"},
            },
        ],
        "request_headers_timeout": "30s",
        "stream_idle_timeout": IDLE_TIMEOUT,
        "normalize_path": True,
        "merge_slashes": True,
        "local_reply_config": _local_replies(),
    }


def _scopes(key: str) -> tuple[Json, ...]:
    """Return the scopes of a listener's routes: every method has the same ones.

    Only with scopes does Envoy look at the newest routes when `peek.lua` has it route anew; plain
    routes are those of the moment the request began, and their clusters may be gone by then.
    """
    return tuple(
        {
            "@type": f"{_TYPES}.config.route.v3.ScopedRouteConfiguration",
            "name": f"{key}_{method}",
            "route_configuration_name": key,
            "key": {"fragments": [{"string_key": method}]},
        }
        for method in _HTTP_METHODS
    )


def _local_replies() -> Json:
    """Put what Envoy itself answers into the protocol's form: JSON, or a gRPC status that fits."""
    is_grpc = {
        "string_match": {"prefix": "application/grpc"},
        "treat_missing_header_as_empty": True,
    }
    is_http = {"name": "content-type", "invert_match": True, **is_grpc}
    form = {"json_format": {"error": "%LOCAL_REPLY_BODY%"}}
    return {
        "mappers": [
            _grpc_reply(404, grpc.StatusCode.NOT_FOUND, UNKNOWN_MODEL),
            _grpc_reply(413, grpc.StatusCode.RESOURCE_EXHAUSTED, _TOO_LARGE),
            {"filter": {"header_filter": {"header": is_http}}, "body_format_override": form},
        ]
    }


def _grpc_reply(http_status: int, status: grpc.StatusCode, message: str) -> Json:
    """Answer a request for a model over gRPC with a status that Envoy would not choose."""
    regex = f"{re.escape(_SERVICE)}/({'|'.join(_MODEL_METHODS)})"
    path = {"name": ":path", "string_match": {"safe_regex": {"regex": regex}}}
    value = {"default_value": http_status, "runtime_key": f"modelyard.status.{http_status}"}
    filters = [
        {"status_code_filter": {"comparison": {"op": "EQ", "value": value}}},
        {"header_filter": {"header": path}},
    ]
    header = {"key": "grpc-status", "value": str(status.value[0])}
    return {
        "filter": {"and_filter": {"filters": filters}},
        "headers_to_add": [{"header": header, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}],
        "body_format_override": {"text_format_source": {"inline_string": message}},
    }


def _route_configuration(listener: Listener) -> Json:
    routes = [entry for route in listener.routes for entry in _model_routes(route)]
    routes += _server_routes([b for route in listener.routes for b in route.backends])
    routes += [_peeked(f"{_SERVICE}/{method}") for method in _MODEL_METHODS]
    routes.append(_refused({"prefix": "/v2/models/"}, 404, UNKNOWN_MODEL))
    routes.append(_refused({"prefix": "/"}, 404, "there is nothing at this path"))
    return {
        "@type": f"{_TYPES}.config.route.v3.RouteConfiguration",
        "name": listener.key,
        "virtual_hosts": [{"name": listener.key, "domains": ["*"], "routes": routes}],
    }


def _model_routes(route: Route) -> list[Json]:
    named = {"name": MODEL_HEADER, "string_match": {"exact": route.model}}
    http_match = {"path_separated_prefix": f"/v2/models/{route.model}"}
    grpc_match = {"prefix": f"{_SERVICE}/", "headers": [named]}
    unserved = "no version of this model is live"
    previews = [
        entry
        for backend in route.backends
        if backend.header_match is not None
        for entry in (
            _previewed(http_match, backend, backend.header_match, is_grpc=False),
            _previewed(grpc_match, backend, backend.header_match, is_grpc=True),
        )
    ]
    return [
        *previews,
        _shared(http_match, route.backends, unserved, is_grpc=False),
        _shared(grpc_match, route.backends, unserved, is_grpc=True),
    ]


def _previewed(match: Json, backend: Backend, header: HeaderMatch, *, is_grpc: bool) -> Json:
    """Send the requests with a header to one backend; they are not copied to a shadow."""
    wanted = {"name": header.name, "string_match": {"exact": header.value}}
    narrowed = {**match, "headers": [*match.get("headers", ()), wanted]}
    alone = replace(backend, weight=EVERYTHING, mirror_percent=0)
    return _shared(narrowed, (alone,), "", is_grpc=is_grpc)


def _server_routes(backends: list[Backend]) -> list[Json]:
    """Route what is asked of the server as a whole to any model server."""
    paths = ("/v2", "/v2/", "/v2/health/live", "/v2/health/ready")
    methods = [f"{_SERVICE}/{method}" for method in _SERVER_METHODS]
    some = tuple(backends)
    unserved = "no model is live"
    return [_shared({"path": path}, some, unserved, is_grpc=False) for path in paths] + [
        _shared({"path": path}, some, unserved, is_grpc=True) for path in methods
    ]


def _shared(match: Json, backends: tuple[Backend, ...], unserved: str, *, is_grpc: bool) -> Json:
    """Share requests among the backends that have a weight."""
    weights = [
        {"name": cluster_names(backend.id)[is_grpc], "weight": backend.weight}
        for backend in backends
        if backend.weight > 0
    ]
    if not weights:
        return _refused(match, 503, unserved)
    most = max(backends, key=lambda backend: backend.weight)
    action = {
        "weighted_clusters": {"clusters": weights},
        "timeout": f"{most.timeout_seconds:g}s",
        "request_mirror_policies": [
            {
                "cluster": cluster_names(backend.id)[is_grpc],
                "runtime_fraction": {"default_value": {"numerator": backend.mirror_percent}},
            }
            for backend in backends
            if backend.mirror_percent
        ],
        "retry_policy": {
            # Only what certainly was not begun: a prediction is never made twice.
            "retry_on": "connect-failure,refused-stream,reset-before-request",
            "num_retries": 3,
            "retry_host_predicate": [
                {
                    "name": "envoy.retry_host_predicates.previous_hosts",
                    "typed_config": {"@type": _PREVIOUS_HOSTS},
                }
            ],
            "host_selection_retry_max_attempts": 3,
        },
    }
    return {"match": match, "route": action}


def _peeked(path: str) -> Json:
    """Read the model's name from the message and route anew; unknown there too: 404.

    It is a route to a cluster that is never there, because only such a route, and not a direct
    answer, can have a limit of its own for the body it holds.
    """
    per_route = {"@type": f"{_FILTERS}.http.lua.v3.LuaPerRoute"}
    return {
        "match": {"path": path},
        "route": {"cluster": "none", "cluster_not_found_response_code": "NOT_FOUND"},
        "request_body_buffer_limit": MAX_PEEKED_BYTES,
        "typed_per_filter_config": {
            "envoy.filters.http.lua": per_route | {"source_code": {"inline_string": _PEEK}}
        },
    }


def _refused(match: Json, status: int, message: str) -> Json:
    return {
        "match": match,
        "direct_response": {"status": status, "body": {"inline_string": message}},
    }
