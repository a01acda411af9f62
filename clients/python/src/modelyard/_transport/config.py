"""Finding the server: arguments, then the environment, then the config file.

The config file is `~/.config/modelyard/config.toml` (`MODELYARD_CONFIG` names
another) with the keys `server`, `token` or `token_file`, `project` and
`root_certificates`. Its credential goes only to its own server.
"""

from __future__ import annotations

import os
import re
import ssl
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from modelyard.errors import ConfigError

DEFAULT_PROJECT = "default"
DEFAULT_PORT = 7070
_SCHEMES = {"https://": True, "grpcs://": True, "http://": False, "grpc://": False}
_LOCAL = re.compile(r"unix:|(127(\.\d+){3}|localhost|\[::1\])(:\d+)?$")
_KEYS = ("server", "token", "token_file", "project", "root_certificates")


@dataclass(frozen=True, slots=True)
class ConnectionSettings:
    """Say which server to talk to, as whom, and in which project."""

    server: str
    token: str = field(default="", repr=False)
    project: str = DEFAULT_PROJECT
    root_certificates: bytes | None = field(default=None, repr=False)
    certificates_file: Path | None = None
    """The file that they were read from; it may be replaced while the connection is used."""

    @property
    def secure(self) -> bool:
        """Whether the connection is encrypted.

        It is unless the address says otherwise, or is this machine's own.
        """
        scheme, address = _split(self.server)
        is_wanted = self.root_certificates is not None or not is_local(address)
        return _SCHEMES.get(scheme, is_wanted)

    @property
    def target(self) -> str:
        """Where the server is, as gRPC writes it."""
        scheme, address = _split(self.server)
        if address.startswith(("unix:", "dns:", "ipv4:", "ipv6:")):
            return address
        host, colon, port = address.rpartition(":")
        if colon and port.isdigit() and not (":" in host and not host.endswith("]")):
            return address
        return f"{address}:{443 if _SCHEMES.get(scheme) else DEFAULT_PORT}"


def find_settings(
    server: str | None = None,
    *,
    token: str | None = None,
    project: str | None = None,
    root_certificates: bytes | str | Path | None = None,
    environ: Mapping[str, str] | None = None,
) -> ConnectionSettings:
    """Return the settings that the arguments, the environment and the file give.

    Raises:
        ConfigError: No server is named anywhere, or a named file cannot be used.
    """
    env = os.environ if environ is None else environ
    file = _read_config(env)
    address = server or env.get("MODELYARD_SERVER") or file.get("server")
    if not address:
        raise ConfigError(
            "no Modelyard server is known: start one with `modelyard up`, or set "
            f"MODELYARD_SERVER and MODELYARD_TOKEN, or write {config_path(env)}",
            reason="NO_SERVER",
        )
    own = address == file.get("server")
    certificates = (
        root_certificates
        or env.get("MODELYARD_ROOT_CERTIFICATES")
        or (file.get("root_certificates") if own else None)
    )
    return ConnectionSettings(
        server=address,
        token=_find_token(token, env, file if own else {}),
        project=project or env.get("MODELYARD_PROJECT") or file.get("project") or DEFAULT_PROJECT,
        root_certificates=_certificates(certificates),
        certificates_file=_file(certificates),
    )


def config_path(environ: Mapping[str, str] | None = None) -> Path:
    """Return where the config file is, whether or not it exists."""
    env = os.environ if environ is None else environ
    named = env.get("MODELYARD_CONFIG")
    if named:
        return Path(named).expanduser()
    home = env.get("XDG_CONFIG_HOME") or "~/.config"
    return Path(home).expanduser() / "modelyard" / "config.toml"


def is_local(address: str) -> bool:
    """Say whether an address is this machine's own loopback, or a socket of its."""
    host = re.sub(r"^(dns:|ipv4:|ipv6:)(//[^/]*/)?", "", address)
    return _LOCAL.match(host) is not None


def _split(server: str) -> tuple[str, str]:
    for scheme in _SCHEMES:
        if server.startswith(scheme):
            return scheme, server[len(scheme) :].rstrip("/")
    return "", server


def _read_config(env: Mapping[str, str]) -> dict[str, str]:
    # A file that is not there yet is one that `up` or `login` will write.
    path = config_path(env)
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as problem:
        raise ConfigError(f"cannot read {path}: {problem}", reason="BAD_CONFIG") from problem
    for key in _KEYS:
        if not isinstance(values.get(key, ""), str):
            raise ConfigError(f"{path}: `{key}` must be a text", reason="BAD_CONFIG")
    return {key: values[key] for key in _KEYS if values.get(key)}


def _find_token(token: str | None, env: Mapping[str, str], file: Mapping[str, str]) -> str:
    if token is not None:
        return token.strip()
    for source, prefix in ((env, "MODELYARD_TOKEN"), (file, "token")):
        literal = source.get(prefix)
        if literal:
            return literal.strip()
        named = source.get(f"{prefix}_FILE" if source is env else f"{prefix}_file")
        if named:
            return _read(named).decode("utf-8", "replace").strip()
    return ""


def _certificates(source: bytes | str | Path | None) -> bytes | None:
    if isinstance(source, bytes):
        return source or None
    return _read(source) if source else None


def _file(source: bytes | str | Path | None) -> Path | None:
    return None if isinstance(source, bytes) or not source else Path(source).expanduser().absolute()


def _read(path: str | Path) -> bytes:
    try:
        return Path(path).expanduser().read_bytes()
    except OSError as problem:
        raise ConfigError(f"cannot read {path}: {problem}", reason="BAD_CONFIG") from problem


def trust(context: ssl.SSLContext, authorities: bytes) -> None:
    """Have TLS trust authorities in PEM; what stands between them may be no ASCII.

    Raises:
        OSError, ValueError: They are none.
    """
    context.load_verify_locations(cadata=authorities.decode("ascii", "ignore"))
