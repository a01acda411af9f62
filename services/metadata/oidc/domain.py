"""Which issuers are trusted, for what, and whom their tokens stand for."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec

from services.common.auth import invalid_credential
from services.common.safe_start import is_loopback
from services.common.settings import SettingsError

ALGORITHMS = ("RS256", "ES256", "EdDSA", "Ed25519")
ALLOWED = frozenset(
    {"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512"}
    | {"EdDSA", "Ed25519"}
)
PRINCIPAL_LENGTH = 200
_TEMPLATE = re.compile(r"(?!service:)[a-z][a-z0-9-]*:[^{}]*(?:\{\w+\}[^{}]*)+")
_FIELD = re.compile(r"\{(\w+)\}")


class Issuer(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An OIDC issuer as the operator's file describes it."""

    issuer: str
    """Its address, exactly as its tokens name it."""
    audience: str
    """What its tokens must be meant for."""
    principal: str = "user:{sub}"
    """Whom a token stands for; `{claim}` is put in from the token."""
    algorithms: tuple[str, ...] = ALGORITHMS
    """What its signatures may be made with; never a shared secret."""
    require: dict[str, str | int | bool] = {}
    """Claims that a token must have, with these values; in a list, one of them."""
    operators: tuple[str, ...] = ()
    """Principals that may operate the installation."""
    root_certificates: str = ""
    """A PEM file of authorities to trust beside the system's."""

    def principal_of(self, claims: Mapping[str, Any]) -> str:
        """Return whom claims stand for.

        Raises:
            ServiceError: INVALID_CREDENTIAL when a claim is missing or no plain text.
        """
        found = _FIELD.sub(lambda match: _text(claims.get(match[1])), self.principal)
        if len(found) > PRINCIPAL_LENGTH:
            raise invalid_credential()
        return found


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    issuer: tuple[Issuer, ...]


class SignedIn(msgspec.Struct, frozen=True):
    """Whom a token of an issuer stands for, and until when."""

    principal: str
    is_operator: bool
    expire_time: datetime


def read_issuers(path: str) -> tuple[Issuer, ...]:
    """Read the issuers' file; without one nobody signs in through OIDC.

    Raises:
        SettingsError: it cannot be read, or trusts what must not be trusted.
    """
    if not path:
        return ()
    try:
        issuers = msgspec.convert(tomllib.loads(Path(path).read_text("utf-8")), _File).issuer
    except OSError as error:
        raise SettingsError(f"{path}: {error.strerror}") from None
    except (ValueError, msgspec.ValidationError) as error:
        raise SettingsError(f"{path}: {error}") from None
    for issuer in issuers:
        problem = _problem(issuer)
        if problem:
            raise SettingsError(f"{path}: {issuer.issuer!r}: {problem}")
    if len({issuer.issuer for issuer in issuers}) < len(issuers):
        raise SettingsError(f"{path}: names an issuer twice")
    return issuers


def is_safe_url(url: str) -> bool:
    """Say whether what an address answers cannot be changed on its way."""
    parts = urlsplit(url)
    is_local = parts.scheme == "http" and is_loopback(parts.netloc)
    return bool(parts.hostname) and (parts.scheme == "https" or is_local)


def _problem(issuer: Issuer) -> str:
    if not is_safe_url(issuer.issuer):
        return "must be an https address"
    if not issuer.audience:
        return "audience must not be empty"
    if not issuer.algorithms or not set(issuer.algorithms) <= ALLOWED:
        return f"algorithms must be some of {', '.join(sorted(ALLOWED))}"
    if not _TEMPLATE.fullmatch(issuer.principal):
        return "principal must be as `user:{sub}`, and not of kind `service`"
    return ""


def _text(value: object) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise invalid_credential()
    text = str(value)
    if not text.strip() or not text.isprintable():
        raise invalid_credential()
    return text
