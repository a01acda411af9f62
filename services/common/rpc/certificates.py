"""Certificates and keys of files: read with care, and anew when they change.

A server looks at its files at each new connection, so a certificate is renewed by
replacing them; connections that are open go on. A pair that does not fit, as between the
replacement of one file and the other, is left alone until it does.
"""

from __future__ import annotations

import logging
import ssl
from pathlib import Path

import grpc
from modelyard._transport.file_changes import FileChanges

from services.common.safe_start import read_private
from services.common.settings import SettingsError

logger = logging.getLogger(__name__)


class ServerCertificate:
    """What a server proves itself with, as its files hold it right now."""

    def __init__(self, certificate: str, key: str, authority: str) -> None:
        self._certificate = certificate
        self._key = key
        self._authority = authority
        self._changes = FileChanges(filter(None, (certificate, key, authority)), seconds=0)

    def read(self) -> grpc.ServerCertificateConfiguration:
        """Read the files.

        Raises:
            SettingsError: one cannot be read, or they do not fit.
        """
        pair = read_pair(self._certificate, self._key)
        authority = read_certificates(self._authority) if self._authority else None
        return grpc.ssl_server_certificate_configuration([pair], authority)

    def changed(self) -> grpc.ServerCertificateConfiguration | None:
        """Return what the files hold if they changed since it was last asked; else None."""
        if not self._changes.found():
            return None
        try:
            return self.read()
        except SettingsError as error:
            logger.warning("certificates not read anew", extra={"error": str(error)})
            return None


def server_context(certificate: str, key: str) -> ssl.SSLContext:
    """Make the TLS of a server that is not gRPC's, which looks at its files as often.

    Raises:
        SettingsError: one cannot be read, everybody may read the key, or they do not fit.
    """
    changes = FileChanges((certificate, key), seconds=0)
    door = present = _context(certificate, key)

    def renew(connection: ssl.SSLObject | ssl.SSLSocket, _name: str | None, _door: object) -> None:
        nonlocal present
        if changes.found():
            try:
                present = _context(certificate, key)
            except SettingsError as error:
                logger.warning("certificates not read anew", extra={"error": str(error)})
        connection.context = present

    door.sni_callback = renew  # called at each connection, whether or not it names whom it wants
    return door


def _context(certificate: str, key: str) -> ssl.SSLContext:
    read_pair(certificate, key)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    return context


def read_pair(certificate: str, key: str) -> tuple[bytes, bytes]:
    """Read a key and its certificate of PEM files.

    Raises:
        SettingsError: one cannot be read, everybody may read the key, or they do not fit.
    """
    pair = (read_private(Path(key)), read_certificates(certificate))
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key)
    except OSError:  # of TLS too
        raise SettingsError(f"{certificate}: {key} is not its key") from None
    return pair


def read_certificates(path: str) -> bytes:
    """Read certificates of a PEM file.

    Raises:
        SettingsError: there are none.
    """
    try:
        text = Path(path).read_bytes()
    except OSError as error:
        raise SettingsError(f"{path}: {error.strerror}") from None
    if b"-----BEGIN CERTIFICATE-----" not in text:
        raise SettingsError(f"{path}: holds no certificate")
    return text
