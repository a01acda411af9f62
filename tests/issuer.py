"""An OIDC issuer for tests: discovery and keys over HTTP, and tokens as it signs them."""

from __future__ import annotations

import functools
import json
import time
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any

from joserfc import jwt
from joserfc.jwk import ECKey, KeySet, OctKey, OKPKey, RSAKey
from joserfc.jws import JWSRegistry

from tests.servers.http import serving_http

AUDIENCE = "modelyard"
Key = RSAKey | ECKey | OctKey | OKPKey


@functools.cache  # they take long to make
def rsa_key(kid: str, owner: str = "issuer") -> RSAKey:
    """Make an owner's key to sign with."""
    return RSAKey.generate_key(2048, {"kid": kid, "use": "sig", "alg": "RS256"})


@dataclass(slots=True)
class Issuer:
    """A running issuer."""

    url: str
    keys: list[Key]
    fetches: int = 0
    is_broken: bool = False
    polls: list[str] = field(default_factory=list)
    """What the device flow answers to each poll, before it gives a token."""

    def token(
        self,
        subject: str = "ada",
        *,
        key: Key | None = None,
        header: dict[str, Any] | None = None,
        **claims: Any,
    ) -> str:
        """Sign a token; a claim that is None is left out."""
        now, key = int(time.time()), key or self.keys[0]
        known = {
            "iss": self.url,
            "aud": AUDIENCE,
            "sub": subject,
            "iat": now,
            "exp": now + 600,
            **claims,
        }
        head = {"alg": "RS256", "kid": key.kid, **(header or {})}
        return jwt.encode(
            {name: value for name, value in head.items() if value is not None},
            {name: value for name, value in known.items() if value is not None},
            key,
            registry=JWSRegistry(algorithms=[head["alg"]], strict_check_header=False),
        )

    def answer(self, path: str) -> dict[str, Any] | None:
        """Return what is found at a path."""
        if self.is_broken:
            return None
        if path == "/.well-known/openid-configuration":
            return {
                "issuer": self.url,
                "jwks_uri": f"{self.url}/keys",
                "token_endpoint": f"{self.url}/token",
                "device_authorization_endpoint": f"{self.url}/device",
            }
        self.fetches += 1
        return dict(KeySet(self.keys).as_dict(private=False))

    def post(self, path: str, form: dict[str, str]) -> tuple[int, dict[str, Any]]:
        """Answer the device flow."""
        assert form["client_id"] == AUDIENCE
        if path == "/device":
            where = {"verification_uri": f"{self.url}/activate", "user_code": "WDJB-MJHT"}
            return 200, {"device_code": "d", "interval": 0.01, "expires_in": 60, **where}
        assert form["device_code"] == "d"
        if self.polls:
            return 400, {"error": self.polls.pop(0)}
        return 200, {"id_token": self.token("ada")}


@contextmanager
def issuing() -> Iterator[Issuer]:
    """Run an issuer with one key."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found = issuer.answer(self.path)
            self.send(503 if found is None else 200, found)

        def do_POST(self) -> None:
            text = self.rfile.read(int(self.headers["content-length"])).decode()
            self.send(*issuer.post(self.path, dict(urllib.parse.parse_qsl(text))))

        def send(self, status: int, found: dict[str, Any] | None) -> None:
            body = json.dumps(found).encode()
            self.send_response(status)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    with serving_http(Handler) as port:
        issuer = Issuer(f"http://127.0.0.1:{port}", [rsa_key("one")])
        yield issuer
