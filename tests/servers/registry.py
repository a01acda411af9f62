"""A container registry, Debian's `docker-registry`, that asks for a password or for tokens."""

from __future__ import annotations

import base64
import json
import urllib.error
import urllib.request
from pathlib import Path

from tests.servers.processes import ServerProcess, free_port
from tests.servers.registry_tokens import ISSUER, SERVICE, TokenServer

USER = "builder"
PASSWORD = "s3cret-of-a-test"
_HASH = "$2b$05$mPnO9kkdRZxWkOyaTGQKCu6oULg1e3aGR0YCfyo8XF881IfOF5hVm"
"""Of the password, by bcrypt."""


class RegistryServer:
    """A server on a port of this machine."""

    def __init__(self, folder: Path, tokens: TokenServer | None = None) -> None:
        self._folder = folder
        self._tokens = tokens
        self._process: ServerProcess | None = None
        self.host = f"localhost:{free_port()}"

    def start(self) -> None:
        """Start, or start again; returns once it answers."""
        self._folder.mkdir(exist_ok=True)
        (self._folder / "users").write_text(f"{USER}:{_HASH}\n")
        settings = {
            "version": 0.1,
            "log": {"accesslog": {"disabled": True}},
            "storage": {"filesystem": {"rootdirectory": str(self._folder / "data")}},
            "auth": self._auth(),
            "http": {"addr": self.host},
        }
        (self._folder / "settings.yml").write_text(json.dumps(settings))
        self._process = ServerProcess(
            ["docker-registry", "serve", self._folder / "settings.yml"], log=self._folder / "log"
        )
        self._process.wait_until(self._answers)

    def _auth(self) -> dict[str, dict[str, str]]:
        if self._tokens is None:
            return {"htpasswd": {"realm": "test", "path": str(self._folder / "users")}}
        whom = {"service": SERVICE, "issuer": ISSUER}
        whom |= {"realm": self._tokens.realm, "rootcertbundle": str(self._tokens.certificate)}
        return {"token": whom}

    def takes(self, token: str) -> bool:
        """Say whether a token is good for anything still."""
        request = urllib.request.Request(
            f"http://{self.host}/v2/", headers={"Authorization": f"Bearer {token}"}
        )
        return self._status(request) == 200

    def stop(self) -> None:
        """Kill it; a server that is not running is left alone."""
        if self._process is not None:
            self._process.stop()

    def login(self, file: Path, password: str = PASSWORD) -> Path:
        """Write credentials as `docker login` does."""
        auth = base64.b64encode(f"{USER}:{password}".encode()).decode()
        file.touch(mode=0o600)
        file.write_text(json.dumps({"auths": {self.host: {"auth": auth}}}))
        return file

    def _answers(self) -> bool:
        return self._status(urllib.request.Request(f"http://{self.host}/v2/")) in (200, 401)

    def _status(self, request: urllib.request.Request) -> int:
        """Return how it answers; 0 if it does not."""
        try:
            with urllib.request.urlopen(request, timeout=5) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            return error.code
        except OSError:
            return 0
