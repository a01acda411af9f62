"""Which addresses a webhook may have: public ones, and what the operator allows beside."""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self
from urllib.parse import urlsplit

from services.common.errors import invalid_field

URL_LENGTH = 2_000

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_PORTS = {"https": 443, "http": 80}
_PRINTABLE = re.compile(r"[!-\[\]-~]+")  # visible ASCII without the backslash
_LABEL = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_NAME = re.compile(rf"{_LABEL}(?:\.{_LABEL})*\.?")
_GLOBAL_UNICAST = ipaddress.IPv6Network("2000::/3")
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


@dataclass(frozen=True, slots=True)
class Target:
    """A parsed address: what to connect to, and what to ask for there."""

    scheme: str
    host: str
    port: int
    path: str

    @classmethod
    def parse(cls, url: str) -> Self:
        """Read a URL.

        Raises:
            ValueError: it is none that a webhook may have; the text says why.
        """
        if len(url) > URL_LENGTH or not _PRINTABLE.fullmatch(url):
            raise ValueError(f"must be at most {URL_LENGTH} visible ASCII characters")
        try:
            parts = urlsplit(url)
            host, port = parts.hostname or "", parts.port
        except ValueError:
            raise ValueError("must be a URL") from None
        if parts.scheme not in _PORTS:
            raise ValueError("must begin with https://")
        if "@" in parts.netloc or parts.fragment or port == 0:
            raise ValueError("must have no user, password or fragment, and no port 0")
        if not (_NAME.fullmatch(host) or _is_bracketed(parts.netloc, host)):
            raise ValueError("must name a host")
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        return cls(parts.scheme, host, port or _PORTS[parts.scheme], path)

    @property
    def authority(self) -> str:
        """Return the value of the Host header."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _PORTS[self.scheme] else f"{host}:{self.port}"


@dataclass(frozen=True, slots=True)
class AddressRules:
    """What the operator allows: some networks beside the public ones; there, plain HTTP too."""

    networks: tuple[Network, ...] = ()

    @classmethod
    def read(cls, networks: str) -> Self:
        """Read a comma-separated list of networks, such as `10.0.0.0/8,fd00::/8`.

        Raises:
            ValueError: one of them is none.
        """
        texts: Iterable[str] = filter(None, (part.strip() for part in networks.split(",")))
        return cls(tuple(ipaddress.ip_network(text) for text in texts))

    def allow(self, address: Address, *, plain: bool) -> bool:
        """Say whether an address may be connected to; `plain` is without TLS."""
        inner = _unwrapped(address)
        if any(inner in network for network in self.networks):
            return True
        return not plain and _is_public(inner)

    def check(self, url: str, field: str) -> str:
        """Return a URL, or refuse what can be told without asking for its name.

        Raises:
            ServiceError: INVALID_FIELD.
        """
        try:
            target = Target.parse(url)
        except ValueError as error:
            raise invalid_field(field, str(error)) from None
        plain = target.scheme == "http"
        if plain and not self.networks:
            raise invalid_field(field, "must begin with https://")
        literal = _literal(target.host)
        if literal is not None and not self.allow(literal, plain=plain):
            raise invalid_field(field, "must be a public address")
        return url


def _is_public(address: Address) -> bool:
    """Say whether an address is one host of the public internet."""
    if address.is_multicast or address.is_reserved or not address.is_global:
        return False
    return address.version == 4 or address in _GLOBAL_UNICAST


def _unwrapped(address: Address) -> Address:
    """Return the IPv4 address that an IPv6 address leads to, if it does."""
    if isinstance(address, ipaddress.IPv4Address):
        return address
    if address in _NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour or address


def _literal(host: str) -> Address | None:
    """Return the address that a host spells out, in any notation that resolvers know."""
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        pass
    try:
        return ipaddress.IPv4Address(socket.inet_aton(host))
    except OSError:
        return None


def _is_bracketed(netloc: str, host: str) -> bool:
    try:
        return netloc.startswith("[") and ipaddress.ip_address(host).version == 6
    except ValueError:
        return False
