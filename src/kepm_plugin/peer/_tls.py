"""TLS towards the agent: what is verified, by which CA bundle, and what a failed handshake means in plain words."""

import os
import re
import ssl
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from ..errors import AgentError, AgentUnreachable, PeerNotTrusted, UsageError
from ._rows import is_loopback

_LINKS: Final = 40  # symbolic links that a path may lead through, as on Linux
_FLAGS: Final = ssl.VerifyFlags.VERIFY_X509_TRUSTED_FIRST | ssl.VerifyFlags.VERIFY_X509_PARTIAL_CHAIN
"""The same in every Python. A certificate in the bundle is trusted for itself, whoever signed it. Not "strict" (RFC
5280 to the letter), as what an agent's certificate looks like in detail is not documented."""

_EXPIRED, _NOT_YET_VALID = 10, 9  # X509_V_ERR_CERT_HAS_EXPIRED, X509_V_ERR_CERT_NOT_YET_VALID
_ANOTHER_NAME: Final = (62, 64)  # X509_V_ERR_HOSTNAME_MISMATCH, X509_V_ERR_IP_ADDRESS_MISMATCH
_NO_TLS: Final = frozenset({"WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "PACKET_LENGTH_TOO_LONG"})
_OLD_TLS: Final = frozenset({"UNSUPPORTED_PROTOCOL", "TLSV1_ALERT_PROTOCOL_VERSION", "WRONG_SSL_VERSION"})


def tls_context(host: str, ca_bundle: Path | None) -> ssl.SSLContext:
    """Return the TLS settings for a connection to `host`.

    With a CA bundle the certificate and its host name are verified; without one nothing is, and only a loopback
    host is allowed (the vendor's advice, HTTP Reference).

    Raises:
        PeerNotTrusted: Neither a bundle nor a loopback host.
        UsageError: The bundle cannot be read, holds no certificate, or others could replace it.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # bare: reads nothing of the environment
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.verify_flags = _FLAGS
    if ca_bundle is None:
        if not is_loopback(host):
            raise PeerNotTrusted(
                f"{host} is not this machine, and there is no CA bundle to verify its certificate with: "
                "use the agent's loopback address, or give --ca-bundle"
            )
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        return context
    try:
        context.load_verify_locations(cadata=_bundle(ca_bundle))
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError; no text at all is a ValueError
        told = None if isinstance(error, ssl.SSLError | ValueError) else error.strerror
        why = told or "it holds no certificate"
        raise UsageError(f"the CA bundle {ca_bundle} cannot be used: {why}; give a PEM file") from error
    return context


# --- the bundle -----------------------------------------------------------------------------------------------------


def _bundle(file: Path) -> str:
    """Return the certificates of a PEM file that nobody can replace but root and ourselves.

    Raises:
        UsageError: Somebody else can: it would prove nothing.
        OSError: It cannot be read.
    """
    if sys.platform != "win32":  # there, access lists would have to be read
        for place in _way(file):
            _refuse_open(file, place, place.lstat())
    # Else whoever has made a named pipe of it would hold the event loop up.
    with os.fdopen(os.open(file, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0)), "rb") as opened:
        if not stat.S_ISREG(os.fstat(opened.fileno()).st_mode):
            raise UsageError(f"the CA bundle {file} cannot be used: it is no regular file; give a PEM file")
        text = opened.read().decode("ascii", "replace")
    # OpenSSL skips what stands between certificates, but takes ASCII alone.
    return "\n".join(re.findall(r"-----BEGIN [A-Z0-9 ]*CERTIFICATE-----.*?-----END [A-Z0-9 ]*-----", text, re.DOTALL))


def _way(file: Path) -> Iterator[Path]:
    """Yield each folder and symbolic link that leads to a file, and the file: who can change one chooses the file."""
    here, links = Path(file.anchor or "/"), 0
    ahead = [*reversed(file.absolute().parts)]
    while ahead:
        name = ahead.pop()
        if name == "..":
            here = here.parent
            continue
        place = here / name  # a target that is absolute starts again from the top
        yield place
        if place.is_symlink() and links < _LINKS:
            links += 1
            ahead += reversed(place.readlink().parts)
        else:
            here = place


def _refuse_open(file: Path, place: Path, found: os.stat_result) -> None:
    trusted = {0, os.geteuid()}
    if found.st_uid not in trusted:
        raise UsageError(
            f"the CA bundle {file} proves nothing: {place} belongs to user id {found.st_uid}, who can replace it; "
            "keep it where only root, or this process's user, can write"
        )
    mode = stat.S_IMODE(found.st_mode)
    # By convention a group with the number of its one user; and root's.
    group = mode & stat.S_IWGRP and found.st_gid != found.st_uid
    sticky = stat.S_ISDIR(found.st_mode) and mode & stat.S_ISVTX  # as /tmp: what lies there is its owner's to replace
    if not stat.S_ISLNK(found.st_mode) and not sticky and (group or mode & stat.S_IWOTH):
        raise UsageError(
            f"the CA bundle {file} proves nothing: others can write to {place} (mode {mode:04o}), and so replace it; "
            f"chmod go-w {place}"
        )


# --- what went wrong ------------------------------------------------------------------------------------------------


def failed_verification(error: BaseException | None) -> ssl.SSLCertVerificationError | None:
    """Find a failed verification of a certificate in an error or its causes."""
    return next((each for each in _causes(error) if isinstance(each, ssl.SSLCertVerificationError)), None)


def tls_error(what: str, error: BaseException) -> AgentError | None:
    """Return the error to raise for a handshake that failed; None where `error` and its causes are not about TLS.

    Args:
        what: What is at the other end, or was tried, to begin the message with.
        error: What a connection attempt raised.
    """
    if (refused := failed_verification(error)) is not None:
        return PeerNotTrusted(f"{what}: {_verification(refused)}")
    found = next((each for each in _causes(error) if isinstance(each, (ssl.SSLError, ConnectionError))), None)
    if isinstance(found, (ssl.SSLEOFError, ConnectionResetError, BrokenPipeError)):
        why = "the connection was ended during the TLS handshake; is the agent just stopping or starting?"
    elif not isinstance(found, ssl.SSLError):
        return None
    elif found.reason in _NO_TLS:
        why = "what listens there does not speak TLS; is this the agent's port?"
    elif found.reason in _OLD_TLS:
        why = "what listens there speaks no TLS from 1.2 on; is this the agent's port, and is the agent up to date?"
    else:
        why = f"TLS failed ({(found.reason or type(found).__name__).replace('_', ' ').lower()}); is this the agent?"
    return AgentUnreachable(f"{what}: {why}")


def _verification(error: ssl.SSLCertVerificationError) -> str:
    said = error.verify_message.rstrip(".")
    if error.verify_code in _ANOTHER_NAME:
        return (
            f"the certificate is for another name ({said}); use an address that it names, as "
            "https://localhost:… in --keeper-api-base, and broker.host in the agent's settings"
        )
    if error.verify_code in (_EXPIRED, _NOT_YET_VALID):
        return (
            f"the certificate is not valid now ({said}); set this machine's clock, or restart the agent, which makes "
            "a new one at every start unless a custom one is configured"
        )
    return (
        f"the certificate is not one of the CA bundle's ({said}); export it again from the agent, which makes a new "
        "one at every start unless a custom one is configured"
    )


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
