"""Certificates of every kind that an agent, or somebody else, may show."""

import datetime
import ipaddress
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

Extensions = Sequence[tuple[x509.ExtensionType, bool]]

DAY: Final = datetime.timedelta(days=1)
SERVER: Final[Extensions] = [(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), False)]
LEAF: Final[Extensions] = [
    *SERVER,
    (x509.BasicConstraints(ca=False, path_length=None), True),
    (
        x509.KeyUsage(
            digital_signature=True,
            content_commitment=False,
            key_encipherment=True,
            data_encipherment=False,
            key_agreement=False,
            key_cert_sign=False,
            crl_sign=False,
            encipher_only=False,
            decipher_only=False,
        ),
        True,
    ),
]
"""What .NET's way to make a certificate for a server adds."""

_numbers = count()


@dataclass(frozen=True)
class Made:
    """A certificate, and its PEM files, the first without the key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey
    file: Path
    pair: Path

    def context(self) -> ssl.SSLContext:
        """Return a server's settings that show it."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.pair)
        return context


def make(
    folder: Path,
    *,
    hosts: Sequence[str] = ("localhost", "127.0.0.1"),
    signer: Made | None = None,
    extensions: Extensions = SERVER,
    begins: datetime.timedelta = -DAY,
    ends: datetime.timedelta = DAY,
) -> Made:
    """Make a certificate for a name of its own, by itself unless `signer` signs it."""
    key = ec.generate_private_key(ec.SECP256R1())
    number = next(_numbers)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"agent {number}")])
    now = datetime.datetime.now(datetime.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name if signer is None else signer.certificate.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + begins)
        .not_valid_after(now + ends)
        .add_extension(x509.SubjectAlternativeName([_general(host) for host in hosts]), critical=False)
    )
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical=critical)
    certificate = builder.sign(key if signer is None else signer.key, hashes.SHA256())
    public = certificate.public_bytes(serialization.Encoding.PEM)
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    made = Made(certificate, key, folder / f"{number}.pem", folder / f"{number}.pair.pem")
    made.file.write_bytes(public)
    made.pair.write_bytes(private + public)
    return made


def make_authority(folder: Path) -> Made:
    """Make what signs certificates."""
    return make(folder, extensions=[(x509.BasicConstraints(ca=True, path_length=0), True)])


def _general(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)
