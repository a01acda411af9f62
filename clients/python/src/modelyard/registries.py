"""Pushing an image to a container registry (`modelyard[registry]`), byte for byte.

What a registry gets is what lies in the layout, uncompressed layers and all, so there the image
has the digest that it has here. Credentials are those of a `config.json` as `docker login` and
`skopeo login` write it; none is in a message. TLS is a must but for registries on this machine.
"""

from __future__ import annotations

import ipaddress
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit

from modelyard import images
from modelyard.errors import FailedPreconditionError
from modelyard.images import MANIFEST_TYPE

MAX_REFERENCE = 512
DEFAULT_TAG = "latest"
ATTEMPTS = 6
FIRST_DELAY = 0.5
SILENT_SECONDS = 60.0
_PIECE = 1024 * 1024
_PART = r"[a-z0-9]+(?:(?:\.|__?|-+)[a-z0-9]+)*"
# As the OCI distribution specification has it; a registry's name has a dot or a port.
_TARGET = re.compile(
    r"(?P<registry>localhost|[A-Za-z0-9.-]+(?:\.[A-Za-z0-9-]+|:\d{1,5}))"
    rf"/(?P<repository>{_PART}(?:/{_PART})*)(?::(?P<tag>\w[\w.-]{{0,127}}))?",
    re.ASCII,
)
_PASSING = frozenset({408, 429, 500, 502, 503, 504})


class RegistryError(Exception):
    """An image could not be pushed; the text says why."""

    def __init__(self, message: str, *, passing: bool = False) -> None:
        super().__init__(message)
        self.passing = passing
        """Whether it may go well another time."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where an image is pushed to."""

    registry: str
    """A host, with its port unless that is the scheme's."""
    repository: str
    tag: str = DEFAULT_TAG

    @classmethod
    def parse(cls, text: str) -> Target:
        """Read `registry/repository:tag`; without a tag it is `latest`.

        Raises:
            ValueError: It is none, or names no registry.
        """
        found = _TARGET.fullmatch(text) if len(text) <= MAX_REFERENCE else None
        if found is None:
            raise ValueError(f"{text[:MAX_REFERENCE]!r} is no registry/repository:tag")
        return cls(found["registry"], found["repository"], found["tag"] or DEFAULT_TAG)

    @property
    def is_local(self) -> bool:
        """Say whether the registry is on this machine, where plain HTTP is spoken."""
        host = urlsplit(f"//{self.registry}").hostname or ""
        try:
            return ipaddress.ip_address(host).is_loopback
        except ValueError:
            return host == "localhost"

    def __str__(self) -> str:
        return f"{self.registry}/{self.repository}:{self.tag}"


def require() -> None:
    """Refuse to go on where images cannot be pushed.

    Raises:
        FailedPreconditionError: EXTRA_MISSING.
    """
    _oras("provider")


def push(layout: Path, target: Target, *, auth_file: Path | None = None) -> str:
    """Push the one image of a layout; what the registry has already is not sent again.

    Args:
        layout: An OCI image layout.
        target: Where to.
        auth_file: A `config.json` with credentials, beside that of this account.

    Returns:
        What names the image for ever: `registry/repository@sha256:…`.

    Raises:
        RegistryError: The registry refused, or did not answer at `ATTEMPTS` attempts.
        ImageError: The layout holds no image.
        FailedPreconditionError: EXTRA_MISSING: `modelyard[registry]` is not installed.
    """
    delay = FIRST_DELAY
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return _Pushing(layout, target, auth_file).run()
        except RegistryError as error:
            if not error.passing or attempt == ATTEMPTS:
                raise
        time.sleep(delay)
        delay *= 2
    raise AssertionError


class _Pushing:
    """One attempt."""

    def __init__(self, layout: Path, target: Target, auth_file: Path | None) -> None:
        self._layout = layout
        self._target = target
        self._scheme = "http" if target.is_local else "https"
        self._is_basic = False
        self._registry = self._connect(auth_file)

    def run(self) -> str:
        digest = images.manifest_digest(self._layout)
        for part, size in images.parts(self._layout):
            self._put_blob(part, size)
        self._put_manifest(digest)
        return f"{self._target.registry}/{self._target.repository}@{digest}"

    def _connect(self, auth_file: Path | None) -> Any:
        """Return a client that knows how this registry wants to be told who asks."""
        provider: Any = _oras("provider")
        registry = self._client(provider, "token")
        address = f"{self._scheme}://{self._target.registry}/v2/"
        challenge = self._send(registry.session.get, address).headers.get("Www-Authenticate", "")
        self._is_basic = challenge.lower().startswith("basic")
        if self._is_basic:
            registry = self._client(provider, "basic")
        try:
            configs = [str(auth_file)] if auth_file else None
            registry.auth.load_configs(registry.get_container(str(self._target)), configs)
        except (OSError, ValueError, AttributeError):
            problem = f"the credentials for {self._target.registry} cannot be read"
            raise RegistryError(problem) from None
        if challenge and not self._is_basic:
            self._take_token(registry.auth, challenge)
        return registry

    def _take_token(self, auth: Any, challenge: str) -> None:
        """Get one that is good for all that follows: the library asks for one to read alone."""
        asked = _oras("auth.utils").parse_auth_header(challenge)
        asked.scope = f"repository:{self._target.repository}:pull,push"
        auth.set_token_auth(self._send(auth.request_token, asked))

    def _client(self, provider: Any, backend: str) -> Any:
        registry = provider.Registry(insecure=self._target.is_local, auth_backend=backend)
        for scheme in ("http://", "https://"):
            registry.session.mount(scheme, _adapter())
        return registry

    def _put_blob(self, digest: str, size: int) -> None:
        there = self._ask("HEAD", self._address(f"blobs/{digest}"))
        if there.status_code == 200:
            return
        opened = self._expect(self._ask("POST", self._address("blobs/uploads/")), 202)
        place = urljoin(opened.url, opened.headers["Location"])
        place += f"{'&' if '?' in place else '?'}digest={digest}"
        headers = {"Content-Type": "application/octet-stream", "Content-Length": str(size)}
        content = _Content(images.blob(self._layout, digest), size)
        self._expect(self._ask("PUT", place, data=content, headers=headers), 201)

    def _put_manifest(self, digest: str) -> None:
        data = images.blob(self._layout, digest).read_bytes()
        address = self._address(f"manifests/{self._target.tag}")
        headers = {"Content-Type": MANIFEST_TYPE}
        answer = self._expect(self._ask("PUT", address, data=data, headers=headers), 201)
        known = answer.headers.get("Docker-Content-Digest", digest)
        if known != digest:
            raise RegistryError(f"{self._target.registry} keeps {known}, not {digest}")

    def _address(self, path: str) -> str:
        return f"{self._scheme}://{self._target.registry}/v2/{self._target.repository}/{path}"

    def _ask(self, method: str, address: str, **options: Any) -> Any:
        headers = dict(options.pop("headers", ()))
        if self._is_basic and urlsplit(address).netloc == self._target.registry:
            # At once: who is refused in the middle of a large body never hears why.
            headers |= self._send(self._registry.auth.get_auth_header)
        return self._send(self._registry.do_request, address, method, headers=headers, **options)

    def _send(self, request: Any, *arguments: Any, **options: Any) -> Any:
        import requests  # noqa: PLC0415

        try:
            return request(*arguments, **options)
        except requests.exceptions.SSLError:
            raise RegistryError(f"{self._target.registry} has no certificate to trust") from None
        except requests.exceptions.RequestException as error:
            unreachable = f"{self._target.registry} cannot be reached: {type(error).__name__}"
            raise RegistryError(unreachable, passing=True) from None
        except (ValueError, AttributeError):  # so the library says that it has none
            missing = f"{self._target.registry} asks for credentials, and there are none for it"
            raise RegistryError(missing) from None

    def _expect(self, answer: Any, status: int) -> Any:
        """Refuse an answer with another status."""
        if answer.status_code == status:
            return answer
        if answer.status_code in (401, 403):
            refused = f"{self._target.registry} refuses to have {self._target} pushed by us"
            raise RegistryError(refused)
        message = f"{self._target.registry} answered {answer.status_code} {answer.reason}"
        raise RegistryError(message, passing=answer.status_code in _PASSING)


@dataclass(frozen=True, slots=True)
class _Content:
    """A file that is sent piece by piece, and again from its start when it is asked for again."""

    path: Path
    size: int

    def __len__(self) -> int:
        return self.size

    def __iter__(self) -> Iterator[bytes]:
        with self.path.open("rb") as file:
            while piece := file.read(_PIECE):
                yield piece


def _adapter() -> Any:
    """Return what carries requests, none of which waits for ever."""
    from requests.adapters import HTTPAdapter  # noqa: PLC0415

    class Impatient(HTTPAdapter):
        def send(self, *arguments: Any, **options: Any) -> Any:
            return super().send(*arguments, **{**options, "timeout": SILENT_SECONDS})

    return Impatient()


def _oras(module: str) -> Any:
    import importlib  # noqa: PLC0415

    try:
        return importlib.import_module(f"oras.{module}")
    except ImportError as error:
        raise FailedPreconditionError(
            "pushing images needs `pip install modelyard[registry]`", reason="EXTRA_MISSING"
        ) from error
