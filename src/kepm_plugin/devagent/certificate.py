"""The agent's TLS certificate: self-signed for localhost, new at each start, its key never on disk (Cert Support)."""

import datetime
import ipaddress
import os
import ssl
import sys
import tempfile
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

VALID = datetime.timedelta(days=30)


def self_signed() -> tuple[bytes, bytes]:
    """Return a new certificate for localhost and 127.0.0.1, and its private key, both PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    hosts = x509.SubjectAlternativeName([x509.DNSName("localhost"), x509.IPAddress(ipaddress.IPv4Address("127.0.0.1"))])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(minutes=5))
        .not_valid_after(now + VALID)
        .add_extension(hosts, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return certificate.public_bytes(serialization.Encoding.PEM), private


def server_context(certificate: bytes, private_key: bytes) -> ssl.SSLContext:
    """Return the context of both listeners."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    use(context, certificate, private_key)
    return context


def use(context: ssl.SSLContext, certificate: bytes, private_key: bytes) -> None:
    """Show a certificate in every handshake from now on; connections that exist keep theirs."""
    pem = private_key + certificate
    if sys.platform == "linux":
        # load_cert_chain reads files only: give it one that exists in memory alone.
        descriptor = os.memfd_create("kepm-dev-agent", os.MFD_CLOEXEC)
        try:
            os.write(descriptor, pem)
            context.load_cert_chain(f"/proc/self/fd/{descriptor}")
        finally:
            os.close(descriptor)
    else:
        _load_through_file(context, pem)


def _load_through_file(context: ssl.SSLContext, pem: bytes) -> None:
    """Load the pair through an owner-only file that is gone when this returns."""
    descriptor, name = tempfile.mkstemp(prefix="kepm-dev-agent-", suffix=".pem")  # mode 0600
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(pem)
        context.load_cert_chain(name)
    finally:
        Path(name).unlink()
