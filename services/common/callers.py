"""Which process of the suite calls, by the certificate that it shows.

Its name is the path of a SPIFFE id, such as `spiffe://modelyard/builder`. What comes through
the proxy shows the proxy's certificate; the proxy alone may say whose it saw, in a header
from which it removed whatever callers wrote there themselves. Who calls without one through
the proxy is a user: let in by his credential, but not where processes of the suite are demanded.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import grpc
from modelyard.common.v1 import access_pb2

TRUST_DOMAIN = "spiffe://modelyard/"
PROXY = "proxy"
PEERS = frozenset(name.removeprefix("PEER_").lower() for name in access_pb2.Peer.keys()[1:])
FORWARDED = "x-forwarded-client-cert"
_NAMES = "x509_subject_alternative_name"


def may_call(
    context: grpc.aio.ServicerContext[Any, Any],
    metadata: Mapping[str, str],
    peers: Collection[str],
) -> bool:
    """Say whether the connection's certificate is one of the suite, and fit for an RPC.

    Args:
        context: the call's.
        metadata: what came with it.
        peers: the processes that may call; empty: whoever holds the right.
    """
    shown = context.auth_context().get(_NAMES, ())
    name = _only([_name(text.decode("utf-8", "replace")) for text in shown])
    if name == PROXY:
        # One element without quotes is what our proxy writes; all else names nobody.
        return not peers or _forwarded(metadata.get(FORWARDED, "")) in peers
    return name in PEERS and (not peers or name in peers)


def _forwarded(header: str) -> str:
    if "," in header or '"' in header:
        return ""
    fields = [field.partition("=") for field in header.split(";")]
    return _only([_name(value) for key, _, value in fields if key.lower() == "uri"])


def _name(text: str) -> str:
    return text.removeprefix(TRUST_DOMAIN) if text.startswith(TRUST_DOMAIN) else ""


def _only(names: list[str]) -> str:
    """Return the one name there is; who has two has none."""
    named = [name for name in names if name]
    return named[0] if len(named) == 1 else ""
