"""Certificates that their authority took back: its lists (CRL, RFC 5280), kept in a file.

gRPC's Python looks at no such list when a connection is made, so what the connection showed is
looked up at each call, and again while a stream is open.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from functools import lru_cache, partial
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from modelyard._transport.file_changes import FileChanges

from services.common.rpc.certificates import read_certificates
from services.common.settings import SettingsError

logger = logging.getLogger(__name__)

REMIND_SECONDS = 60.0
"""How often is told of a list that should have been replaced long since."""
REMEMBERED = 1_024
"""So many certificates are not looked up again until the lists change."""
_END = b"-----END X509 CRL-----"


class Revocations:
    """Which certificates are revoked, as the file says right now."""

    def __init__(self, lists: str, authority: str, *, seconds: float | None = None) -> None:
        """Read the lists, PEM one after the other, and the authorities whose they are.

        Args:
            lists: the path of their file.
            authority: that of the authorities' certificates.
            seconds: how often to look whether either was replaced; None: every second.

        Raises:
            SettingsError: they cannot be read; one is of no such authority, not of this time, or
                of a kind that is not understood; or an authority has none.
        """
        self._lists = lists
        self._authority = authority
        self._changes = FileChanges((lists, authority), seconds=seconds)
        self._is_revoked, self._end = self._read()
        self._remind_at = 0.0
        if self._end < datetime.now(UTC):
            raise SettingsError(f"{lists}: is outdated: a newer one was due at {self._end}")

    def holds(self, certificates: Iterable[bytes]) -> bool:
        """Say whether any of these, each as PEM, is revoked, or of whom there is no list."""
        self._renew()
        return any(self._is_revoked(pem) for pem in certificates)

    def _renew(self) -> None:
        """Read the lists again if they changed; those that are no good change nothing."""
        if self._changes.found():
            try:
                self._is_revoked, self._end = self._read()
                logger.info("lists of revoked certificates read anew")
            except SettingsError as error:
                extra = {"error": str(error)}
                logger.error("lists of revoked certificates not read anew", extra=extra)
        now = time.monotonic()
        if now > self._remind_at and self._end < datetime.now(UTC):
            # What it says is still true, and to refuse everybody would be worse than it is.
            self._remind_at = now + REMIND_SECONDS
            extra = {"file": self._lists, "due": self._end.isoformat()}
            logger.error("a list of revoked certificates is outdated", extra=extra)

    def _read(self) -> tuple[Callable[[bytes], bool], datetime]:
        """Return what looks a certificate up, and when the first list is due to be replaced."""
        try:
            return self._parsed()
        except ValueError:
            raise SettingsError(f"{self._lists}: holds no list of revoked certificates") from None

    def _parsed(self) -> tuple[Callable[[bytes], bool], datetime]:
        authorities = x509.load_pem_x509_certificates(read_certificates(self._authority))
        lists = _parse(self._lists)
        for one in lists:
            self._check(one, authorities)
        revoked = [(authority, self._of(authority, lists)) for authority in authorities]
        ends = [one.next_update_utc for one in lists if one.next_update_utc is not None]
        end = min(ends, default=datetime.max.replace(tzinfo=UTC))
        return lru_cache(maxsize=REMEMBERED)(partial(_looked_up, revoked)), end

    def _of(
        self, authority: x509.Certificate, lists: list[x509.CertificateRevocationList]
    ) -> frozenset[int]:
        """Return the serial numbers that an authority took back."""
        own = [one for one in lists if _is_of(one, authority)]
        if not own:
            name = authority.subject.rfc4514_string()
            serial = f"{authority.serial_number:x}"
            raise SettingsError(f"{self._lists}: has no list of {name} (serial {serial})")
        return frozenset(entry.serial_number for one in own for entry in one)

    def _check(
        self, one: x509.CertificateRevocationList, authorities: list[x509.Certificate]
    ) -> None:
        name = one.issuer.rfc4514_string()
        if not any(_is_of(one, authority) for authority in authorities):
            raise SettingsError(f"{self._lists}: {name} did not sign its list")
        if one.last_update_utc > datetime.now(UTC):
            raise SettingsError(f"{self._lists}: the list of {name} is of the future")
        if any(extension.critical for extension in one.extensions):  # a delta, or for some only
            raise SettingsError(f"{self._lists}: the list of {name} is not a whole one")


def _parse(path: str) -> list[x509.CertificateRevocationList]:
    try:
        parts = Path(path).read_bytes().split(_END)
        return [x509.load_pem_x509_crl(part + _END) for part in parts if b"-----BEGIN" in part]
    except OSError as error:
        raise SettingsError(f"{path}: {error.strerror}") from None


def _is_of(one: x509.CertificateRevocationList, authority: x509.Certificate) -> bool:
    key = authority.public_key()
    return one.issuer == authority.subject and one.is_signature_valid(key)  # type: ignore[arg-type]


def _looked_up(revoked: list[tuple[x509.Certificate, frozenset[int]]], pem: bytes) -> bool:
    """Say whether a certificate is revoked, or of no authority; of what is none: it is."""
    if not pem:
        return True
    certificate = x509.load_pem_x509_certificate(pem)
    own = [serials for authority, serials in revoked if _is_signed_by(certificate, authority)]
    return not own or any(certificate.serial_number in serials for serials in own)


def _is_signed_by(certificate: x509.Certificate, authority: x509.Certificate) -> bool:
    """Say so by the authority's key: two, an old one and its successor, may have one name."""
    try:
        certificate.verify_directly_issued_by(authority)
    except (InvalidSignature, TypeError, ValueError):
        return False
    return True
