from __future__ import annotations

import datetime as dt
import ipaddress
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from modelyard import Client, ModelyardError


def make_certificate() -> tuple[bytes, bytes]:
    """Return a key and a certificate for 127.0.0.1 that is its own authority."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "modelyard test")])
    now = dt.datetime.now(dt.UTC)
    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(minutes=5))
        .not_valid_after(now + dt.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([address]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    plain = serialization.NoEncryption()
    secret = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain)
    return secret, certificate.public_bytes(pem)


@pytest.fixture(scope="module")
def tls() -> Iterator[tuple[str, bytes]]:
    key, certificate = make_certificate()
    server = grpc.server(ThreadPoolExecutor(2))
    credentials = grpc.ssl_server_credentials([(key, certificate)])
    port = server.add_secure_port("127.0.0.1:0", credentials)
    server.start()
    yield f"127.0.0.1:{port}", certificate
    server.stop(None).wait()


@pytest.mark.parametrize("scheme", ["", "https://", "grpcs://"])
def test_a_known_authority_is_trusted(scheme: str, tls: tuple[str, bytes]) -> None:
    address, certificate = tls
    with Client(scheme + address, token="t", root_certificates=certificate) as client:
        with pytest.raises(ModelyardError) as caught:
            client.models.get("churn")
        assert caught.value.code == "UNIMPLEMENTED"  # the server was reached


@pytest.mark.parametrize("own", [True, False])
def test_an_unknown_authority_is_not(own: bool, tls: tuple[str, bytes]) -> None:
    address, _ = tls
    other = make_certificate()[1] if own else None
    with Client(f"https://{address}", token="t", root_certificates=other, timeout=1) as client:
        with pytest.raises(ModelyardError) as caught:
            client.models.get("churn")
        assert caught.value.code in {"UNAVAILABLE", "DEADLINE_EXCEEDED"}
