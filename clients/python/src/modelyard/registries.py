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
from urllib.parse import urljoin, urlsplit

from modelyard import images
from modelyard._registry_client import RegistryClient, RegistryError, require
from modelyard.images import MANIFEST_TYPE

__all__ = ["RegistryError", "Target", "push", "require"]

MAX_REFERENCE = 512
DEFAULT_TAG = "latest"
ATTEMPTS = 6
FIRST_DELAY = 0.5
_PIECE = 1024 * 1024
_PART = r"[a-z0-9]+(?:(?:\.|__?|-+)[a-z0-9]+)*"
# As the OCI distribution specification has it; a registry's name has a dot or a port.
_TARGET = re.compile(
    r"(?P<registry>localhost|[A-Za-z0-9.-]+(?:\.[A-Za-z0-9-]+|:\d{1,5}))"
    rf"/(?P<repository>{_PART}(?:/{_PART})*)(?::(?P<tag>\w[\w.-]{{0,127}}))?",
    re.ASCII,
)


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
        self._registry = RegistryClient(
            target.registry, target.repository, is_local=target.is_local, auth_file=auth_file
        )

    def run(self) -> str:
        digest = images.manifest_digest(self._layout)
        for part, size in images.parts(self._layout):
            self._put_blob(part, size)
        self._put_manifest(digest)
        return f"{self._target.registry}/{self._target.repository}@{digest}"

    def _put_blob(self, digest: str, size: int) -> None:
        registry = self._registry
        if registry.ask("HEAD", registry.address(f"blobs/{digest}")).status_code == 200:
            return
        address = registry.address("blobs/uploads/")
        opened = registry.expect(registry.ask("POST", address), 202)
        place = urljoin(opened.url, opened.headers["Location"])
        place += f"{'&' if '?' in place else '?'}digest={digest}"
        headers = {"Content-Type": "application/octet-stream", "Content-Length": str(size)}
        content = _Content(images.blob(self._layout, digest), size)
        registry.introduce()
        registry.expect(registry.ask("PUT", place, data=content, headers=headers), 201)

    def _put_manifest(self, digest: str) -> None:
        registry = self._registry
        data = images.blob(self._layout, digest).read_bytes()
        address = registry.address(f"manifests/{self._target.tag}")
        headers = {"Content-Type": MANIFEST_TYPE}
        answer = registry.expect(registry.ask("PUT", address, data=data, headers=headers), 201)
        known = answer.headers.get("Docker-Content-Digest", digest)
        if known != digest:
            raise RegistryError(f"{self._target.registry} keeps {known}, not {digest}")


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
