"""Certificates for tests."""

from __future__ import annotations

import datetime as dt
import ipaddress
from collections.abc import Sequence

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID

HOUR = dt.timedelta(hours=1)
SERVER, CLIENT = ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH


def make_certificate(*names: str) -> tuple[bytes, bytes]:
    """Return a key and a certificate, its own authority, for 127.0.0.1 and some names."""
    authority = Authority(*names)
    return authority.key_pem, authority.pem


class Authority:
    """A throw-away authority, whose own certificate is for 127.0.0.1, too."""

    def __init__(self, *names: str, title: str = "modelyard test") -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _name(title)
        ca = x509.BasicConstraints(ca=True, path_length=None)
        builder = _builder(self._key, self._name, _known("127.0.0.1", names), -HOUR / 12, HOUR)
        builder = builder.add_extension(ca, critical=True).issuer_name(self._name)
        self.pem = _pem(builder.sign(self._key, hashes.SHA256()))
        self.key_pem = _key_pem(self._key)

    def issue(
        self,
        peer: str,
        *,
        address: str = "127.0.0.1",
        begins: dt.timedelta = -HOUR / 12,
        ends: dt.timedelta = HOUR,
        usages: Sequence[x509.ObjectIdentifier] = (SERVER, CLIENT),
    ) -> tuple[bytes, bytes]:
        """Return the key and the certificate of a process of the suite."""
        key = ec.generate_private_key(ec.SECP256R1())
        known = _known(address)
        known += [x509.UniformResourceIdentifier(peer)] if peer else []
        builder = _builder(key, _name(peer or "somebody"), known, begins, ends)
        usage = x509.ExtendedKeyUsage(usages)
        builder = builder.add_extension(usage, critical=False).issuer_name(self._name)
        return _key_pem(key), _pem(builder.sign(self._key, hashes.SHA256()))

    def revoke(
        self,
        *certificates: bytes,
        begins: dt.timedelta = -HOUR / 12,
        ends: dt.timedelta = HOUR,
        is_delta: bool = False,
    ) -> bytes:
        """Return the list of those that were revoked."""
        now = dt.datetime.now(dt.UTC)
        builder = x509.CertificateRevocationListBuilder().issuer_name(self._name)
        builder = builder.last_update(now + begins).next_update(now + ends)
        if is_delta:
            builder = builder.add_extension(x509.DeltaCRLIndicator(1), critical=True)
        for pem in certificates:
            serial = x509.load_pem_x509_certificate(pem).serial_number
            revoked = x509.RevokedCertificateBuilder(serial, now)
            builder = builder.add_revoked_certificate(revoked.build())
        made = builder.sign(self._key, hashes.SHA256())
        return made.public_bytes(serialization.Encoding.PEM)


def _builder(
    key: ec.EllipticCurvePrivateKey,
    name: x509.Name,
    known: Sequence[x509.GeneralName],
    begins: dt.timedelta,
    ends: dt.timedelta,
) -> x509.CertificateBuilder:
    now = dt.datetime.now(dt.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + begins)
        .not_valid_after(now + ends)
        .add_extension(x509.SubjectAlternativeName(known), critical=False)
    )


def _known(address: str, names: Sequence[str] = ()) -> list[x509.GeneralName]:
    return [x509.IPAddress(ipaddress.ip_address(address)), *map(x509.DNSName, names)]


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, text)])


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)
