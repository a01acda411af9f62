"""Which process of the suite calls, by the certificate that it shows.

Its name is the path of a SPIFFE id, such as `spiffe://modelyard/builder`. What comes through
the proxy shows the proxy's certificate; the proxy alone may say whose it saw, in a header
from which it removed whatever callers wrote there themselves. Who calls without one through
the proxy is a user: let in by his credential, but not where processes of the suite are demanded.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any
from urllib.parse import unquote_to_bytes

import grpc
from modelyard.common.v1 import access_pb2

from services.common.rpc.revocation import Revocations

logger = logging.getLogger(__name__)

TRUST_DOMAIN = "spiffe://modelyard/"
PROXY = "proxy"
PEERS = frozenset(name.removeprefix("PEER_").lower() for name in access_pb2.Peer.keys()[1:])
FORWARDED = "x-forwarded-client-cert"
_NAMES = "x509_subject_alternative_name"
_CERTIFICATES = ("x509_pem_cert", "x509_pem_cert_chain")
_END = b"-----END CERTIFICATE-----\n"


class Callers:
    """Who may call a server to which everybody shows a certificate."""

    def __init__(self, revocations: Revocations | None = None) -> None:
        """Take the lists of revoked certificates; None: they are not looked at."""
        self._revocations = revocations

    def may_call(
        self,
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
        shown = context.auth_context()
        name = _only([_name(text.decode("utf-8", "replace")) for text in shown.get(_NAMES, ())])
        if not self._stands(name, _certificates(shown)):
            return False
        if name != PROXY:
            return name in PEERS and (not peers or name in peers)
        return not peers or self._forwarded(metadata.get(FORWARDED, "")) in peers

    def _forwarded(self, header: str) -> str:
        """Return the process that the proxy saw, whose connection to it is as old as may be."""
        name, certificate = _read(header)
        # Nobody is named where a user calls, who shows no certificate.
        return name if name and self._stands(name, [certificate]) else ""

    def _stands(self, name: str, certificates: Iterable[bytes]) -> bool:
        if self._revocations is None or not self._revocations.holds(certificates):
            return True
        logger.warning("a revoked certificate was shown", extra={"peer": name})
        return False


def _certificates(shown: Mapping[str, Iterable[bytes]]) -> Iterator[bytes]:
    """Yield the certificate that was shown and those that came with it."""
    for key in _CERTIFICATES:
        for text in shown.get(key, ()):
            yield from (part + _END for part in text.split(_END) if part)


def _read(header: str) -> tuple[str, bytes]:
    """Return the name in a header, and the certificate; only what our proxy writes names anybody.

    That is one element, in which nothing but the certificate has quotes.
    """
    parted = [field.partition("=") for field in header.split(";")]
    fields = [(key.lower(), value) for key, _, value in parted]
    if "," in header or any('"' in value for key, value in fields if key != "cert"):
        return "", b""
    shown = [value.strip('"') for key, value in fields if key == "cert"]
    name = _only([_name(value) for key, value in fields if key == "uri"])
    return name, unquote_to_bytes(shown[0]) if len(shown) == 1 else b""


def _name(text: str) -> str:
    return text.removeprefix(TRUST_DOMAIN) if text.startswith(TRUST_DOMAIN) else ""


def _only(names: list[str]) -> str:
    """Return the one name there is; who has two has none."""
    named = [name for name in names if name]
    return named[0] if len(named) == 1 else ""
