"""Signing in on another device: the OAuth device flow (RFC 8628) with an OIDC issuer."""

from __future__ import annotations

import json
import ssl
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from typing import Any

from modelyard.errors import ConfigError

SCOPE = "openid email profile"
GRANT = "urn:ietf:params:oauth:grant-type:device_code"
TIMEOUT_SECONDS = 10.0
INTERVAL_SECONDS = 5.0
LIFETIME_SECONDS = 600.0


class _RefusedError(Exception):
    """What the issuer's error code says."""


def sign_in(
    issuer: str,
    client_id: str,
    *,
    tell: Callable[[str, str], None],
    pause: Callable[[float], None] = time.sleep,
) -> str:
    """Return an ID token of whoever signs in.

    Args:
        issuer: the issuer's address.
        client_id: what the issuer knows this command line by; the token's audience.
        tell: is given the address to open and the code to enter there.
        pause: waits so many seconds.

    Raises:
        ConfigError: the issuer does not do this, or whoever it was did not sign in.
    """
    found = _ask(issuer.rstrip("/") + "/.well-known/openid-configuration")
    if "device_authorization_endpoint" not in found:
        raise _problem(f"{issuer} has no device flow; use `--token` or `--token-file`")
    form = {"client_id": client_id, "scope": SCOPE}
    try:
        device = _ask(found["device_authorization_endpoint"], form)
        tell(
            device.get("verification_uri_complete") or device["verification_uri"],
            device["user_code"],
        )
        answer = _poll(found["token_endpoint"], client_id, device, pause)
        return str(answer["id_token"])
    except _RefusedError as error:
        raise _problem(f"{issuer} says {error}") from None
    except KeyError as error:
        raise _problem(f"{issuer} answers without {error}") from None


def _poll(
    endpoint: str, client_id: str, device: dict[str, Any], pause: Callable[[float], None]
) -> dict[str, Any]:
    form = {"grant_type": GRANT, "device_code": device["device_code"], "client_id": client_id}
    interval = float(device.get("interval", INTERVAL_SECONDS))
    until = time.monotonic() + float(device.get("expires_in", LIFETIME_SECONDS))
    while time.monotonic() < until:
        pause(interval)
        try:
            return _ask(endpoint, form)
        except _RefusedError as error:
            if str(error) == "slow_down":
                interval += INTERVAL_SECONDS
            elif str(error) != "authorization_pending":
                raise
    raise _RefusedError("expired_token")


def _ask(url: str, form: dict[str, str] | None = None) -> dict[str, Any]:
    """Get a JSON object, or post a form for one; only where nobody can listen in."""
    parts = urllib.parse.urlsplit(url)
    if parts.scheme != "https" and parts.hostname not in ("127.0.0.1", "localhost", "::1"):
        raise _problem(f"{url} is no https address")
    body = None if form is None else urllib.parse.urlencode(form).encode()
    request = urllib.request.Request(url, body, {"accept": "application/json"})  # noqa: S310 - above
    context = ssl.create_default_context()
    try:
        with urllib.request.urlopen(  # noqa: S310 - above
            request, timeout=TIMEOUT_SECONDS, context=context
        ) as answer:
            return _object(answer.read(), url)
    except urllib.error.HTTPError as error:
        code = _object(error.read(), url).get("error", error.code)
        raise _RefusedError(str(code)) from None
    except OSError as error:
        raise _problem(f"{url} cannot be reached: {error}") from None


def _object(text: bytes, url: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise _problem(f"{url} answers no JSON object")
    return found


def _problem(message: str) -> ConfigError:
    return ConfigError(message, reason="BAD_CONFIG")
