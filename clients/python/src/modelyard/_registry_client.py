"""Asking a container registry (OCI distribution specification) as somebody it knows.

A registry says how it wants to be told who asks: by a password each time, or by a token of
somebody else's that is good for a few minutes. A push may take longer than that, so a token is
taken anew before much is sent, and whenever one is refused.
"""

from __future__ import annotations

import importlib
from http.cookiejar import DefaultCookiePolicy
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from modelyard.errors import FailedPreconditionError

SILENT_SECONDS = 60.0
_PASSING = frozenset({408, 429, 500, 502, 503, 504})


class RegistryError(Exception):
    """An image could not be pushed; the text says why."""

    def __init__(self, message: str, *, passing: bool = False) -> None:
        super().__init__(message)
        self.passing = passing
        """Whether it may go well another time."""


class RegistryClient:
    """Asks about one repository; what cannot be asked is a RegistryError."""

    def __init__(self, host: str, repository: str, *, is_local: bool, auth_file: Path | None):
        """Connect.

        Args:
            host: The registry, with its port unless that is the scheme's.
            repository: Which of its repositories is read and written.
            is_local: Whether plain HTTP is spoken.
            auth_file: A `config.json` with credentials, beside that of this account.

        Raises:
            FailedPreconditionError: EXTRA_MISSING: `modelyard[registry]` is not installed.
        """
        self._host = host
        self._repository = repository
        self._scheme = "http" if is_local else "https"
        self._session = _session()
        self._password = _password(host, auth_file)
        self._challenge = ""
        """How the registry wants to be told who asks; empty: it does not."""
        self._authorization = ""
        self._challenge = self._challenged()
        self.introduce()

    def address(self, path: str) -> str:
        """Return where something of the repository is."""
        return f"{self._scheme}://{self._host}/v2/{self._repository}/{path}"

    def ask(self, method: str, address: str, **options: Any) -> Any:
        """Ask, and once more as who has a new token if this one is refused."""
        answer = self._answer(method, address, **options)
        if answer.status_code == 401 and self._is_ours(address) and self._takes_tokens:
            self.introduce()
            answer = self._answer(method, address, **options)
        return answer

    def expect(self, answer: Any, status: int) -> Any:
        """Refuse an answer with another status."""
        if answer.status_code == status:
            return answer
        if answer.status_code in (401, 403):
            refused = f"{self._host} refuses to have {self._repository} pushed by us"
            raise RegistryError(refused)
        message = f"{self._host} answered {answer.status_code} {answer.reason}"
        raise RegistryError(message, passing=answer.status_code in _PASSING)

    def introduce(self) -> None:
        """See to it that what is asked next is asked by somebody whom the registry knows.

        Worth it before a large body: who is refused in the middle of one never hears why.
        """
        if self._takes_tokens:
            self._authorization = ""
            self._authorization = f"Bearer {self._token()}"
        elif self._challenge and not self._password:
            raise self._unknown()
        elif self._challenge:
            self._authorization = self._password

    def _challenged(self) -> str:
        answer = self._answer("GET", f"{self._scheme}://{self._host}/v2/")
        if answer.status_code != 401:
            self.expect(answer, 200)  # one that is away for a moment must not pass for an open one
        return str(answer.headers.get("Www-Authenticate", ""))

    @property
    def _takes_tokens(self) -> bool:
        return self._challenge.lower().startswith("bearer")

    def _token(self) -> str:
        """Get a token to read and write; without credentials one that anybody gets."""
        asked = _oras("auth.utils").parse_auth_header(self._challenge)
        realm = str(asked.realm)
        if urlsplit(realm).scheme not in ("https", self._scheme):
            raise RegistryError(f"{self._host} has its tokens given without TLS")
        wanted = {"scope": f"repository:{self._repository}:pull,push"}
        if asked.service:
            wanted["service"] = asked.service
        headers = {"Authorization": self._password} if self._password else {}
        answer = self._answer("GET", realm, params=wanted, headers=headers)
        if answer.status_code in (401, 403) and not self._password:
            raise self._unknown()
        try:
            found = self.expect(answer, 200).json()
            return str(found.get("token") or found["access_token"])
        except (ValueError, LookupError, AttributeError):
            raise RegistryError(f"{self._host} gives no token to push with") from None

    def _unknown(self) -> RegistryError:
        return RegistryError(f"{self._host} asks for credentials, and there are none for it")

    def _is_ours(self, address: str) -> bool:
        own = f"{self._scheme}://{self._host}"
        return _origin(address) == _origin(own)

    def _sign(self, request: Any) -> Any:
        """Say who asks, to the registry alone: it may have its contents sent elsewhere."""
        if self._authorization and self._is_ours(request.url):
            request.headers["Authorization"] = self._authorization
        return request

    def _answer(self, method: str, address: str, **options: Any) -> Any:
        errors = _requests().exceptions
        options |= {"auth": self._sign, "timeout": SILENT_SECONDS}
        try:
            return self._session.request(method, address, **options)
        except errors.SSLError:
            raise RegistryError(f"{self._host} has no certificate to trust") from None
        except errors.RequestException as error:
            unreachable = f"{self._host} cannot be reached: {type(error).__name__}"
            raise RegistryError(unreachable, passing=True) from None


def require() -> None:
    """Refuse to go on where images cannot be pushed.

    Raises:
        FailedPreconditionError: EXTRA_MISSING.
    """
    _oras("auth")


def _session() -> Any:
    session = _requests().Session()
    # Some registries take who sends a cookie back for a browser, and ask for more than it knows.
    session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
    return session


def _password(host: str, auth_file: Path | None) -> str:
    """Return the credentials that there are for a registry, as HTTP has them; empty for none."""
    known = _oras("auth").BasicAuth()
    try:
        container = _oras("container").Container("image", registry=host)
        known.load_configs(container, [str(auth_file)] if auth_file else None)
    except (OSError, ValueError, AttributeError, LookupError):
        raise RegistryError(f"the credentials for {host} cannot be read") from None
    try:
        return str(known.get_auth_header()["Authorization"])
    except AttributeError:  # so the library says that it has none
        return ""


def _origin(address: str) -> tuple[str, str | None, int | None]:
    """Return what two addresses of one registry share, however they are spelled."""
    parts = urlsplit(address)
    standard = {"http": 80, "https": 443}.get(parts.scheme)
    return parts.scheme, parts.hostname, parts.port or standard


def _requests() -> Any:
    return _extra("requests")


def _oras(module: str) -> Any:
    return _extra(f"oras.{module}")


def _extra(module: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise FailedPreconditionError(
            "pushing images needs `pip install modelyard[registry]`", reason="EXTRA_MISSING"
        ) from error
