"""A token server for registries: it signs what a user may do, for a few seconds."""

from __future__ import annotations

import base64
import json
import time
import urllib.parse
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from joserfc import jwt
from joserfc.jwk import ECKey
from joserfc.jws import JWSRegistry

from tests.certificates import make_certificate
from tests.servers.http import serving_http

ISSUER = "tokens.example"
SERVICE = "registry.example"
LEEWAY_SECONDS = 60
"""For so long after its end docker-registry takes a token."""
LIFE_SECONDS = 5


@dataclass
class TokenServer:
    """A running server; who asks with another `authorization` gets nothing."""

    certificate: Path
    """Whom a registry is to trust."""
    authorization: str
    key: ECKey
    port: int = 0
    scopes: list[str] = field(default_factory=list)
    """What was asked for, and given."""
    last: str = ""
    """The last token that was given."""

    @property
    def realm(self) -> str:
        return f"http://127.0.0.1:{self.port}/token"

    def answer(self, authorization: str, query: dict[str, list[str]]) -> tuple[int, dict[str, str]]:
        """Answer who wants a token."""
        if authorization != self.authorization:
            return 401, {}
        self.scopes += query["scope"]
        self.last = self._sign([_access(scope) for scope in query["scope"]])
        return 200, {"token": self.last}

    def _sign(self, access: list[dict[str, Any]]) -> str:
        ends = int(time.time()) + LIFE_SECONDS - LEEWAY_SECONDS
        claims: dict[str, Any] = {
            "iss": ISSUER,
            "aud": SERVICE,
            "sub": "",
            "jti": str(uuid.uuid4()),
        }
        claims |= {"nbf": ends - 60, "iat": ends - 60, "exp": ends, "access": access}
        der = x509.load_pem_x509_certificate(self.certificate.read_bytes()).public_bytes(
            Encoding.DER
        )
        head = {"alg": "ES256", "typ": "JWT", "x5c": [base64.b64encode(der).decode()]}
        registry = JWSRegistry(algorithms=["ES256"])
        return jwt.encode(head, claims, self.key, registry=registry)


def _access(scope: str) -> dict[str, Any]:
    kind, name, actions = scope.split(":")
    return {"type": kind, "name": name, "actions": actions.split(",")}


@contextmanager
def giving_tokens(folder: Path, user: str, password: str) -> Iterator[TokenServer]:
    """Give tokens to one user, on a port of this machine."""
    key, certificate = make_certificate()
    (folder / "tokens.pem").write_bytes(certificate)
    known = base64.b64encode(f"{user}:{password}".encode()).decode()
    giver = TokenServer(folder / "tokens.pem", f"Basic {known}", ECKey.import_key(key))

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            query = urllib.parse.parse_qs(urllib.parse.urlsplit(self.path).query)
            status, found = giver.answer(self.headers.get("Authorization", ""), query)
            body = json.dumps(found).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    with serving_http(Handler) as port:
        giver.port = port
        yield giver
