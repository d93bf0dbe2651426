"""TLS of a client: the authorities that it trusts and its own certificate, read again when the files change."""

import logging
import ssl
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

import grpc

from liveavatar.gateway.errors import PlaintextRefused
from liveavatar.gateway.targets import is_local

_log = logging.getLogger(__name__)

_Stamp = tuple[tuple[int, int, int], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class TLS:
    """Files of a TLS connection, in PEM. Changed files are used for new connections; open connections stay."""

    ca_file: str | PathLike[str] | None = None
    """Authorities that may sign the gateway's certificate. Default: those that gRPC brings along."""
    certificate_file: str | PathLike[str] | None = None
    """This client's certificate, followed by those of the intermediate authorities; needs `key_file`."""
    key_file: str | PathLike[str] | None = None
    """Private key of the certificate, not encrypted."""


class ChannelSecurity:
    """Channel credentials for the connections of a client."""

    def __init__(self, tls: TLS | grpc.ChannelCredentials | bool | None) -> None:  # noqa: FBT001  as in `AsyncClient`
        """Read the files.

        Args:
            tls: True for the authorities that gRPC brings along, files, or gRPC's own object; None or False for
                plaintext.

        Raises:
            OSError: a file cannot be read.
            ValueError: a file holds no PEM, or certificate and key do not match.
        """
        self._files = tls if isinstance(tls, TLS) else None
        self._stamp: _Stamp = ()
        self._refused_stamp: _Stamp = ()
        self._current: grpc.ChannelCredentials | None = None
        if isinstance(tls, TLS):
            if (tls.certificate_file is None) is not (tls.key_file is None):
                msg = "a client certificate needs both `certificate_file` and `key_file`"
                raise ValueError(msg)
            self._stamp = _stamp(tls)
            self._current = _read(tls)
        elif isinstance(tls, grpc.ChannelCredentials):
            self._current = tls
        elif tls:
            self._current = grpc.ssl_channel_credentials()

    @property
    def encrypted(self) -> bool:
        """True if connections use TLS."""
        return self._current is not None

    def credentials(self) -> grpc.ChannelCredentials | None:
        """Return the credentials for a new connection; None for plaintext. The same object until files change.

        Files that are unusable, since a certificate was replaced and its key was not yet, leave the former ones
        in use.
        """
        files = self._files
        if files is None:
            return self._current
        try:
            stamp = _stamp(files)
            if stamp not in (self._stamp, self._refused_stamp):
                self._refused_stamp = stamp
                self._current = _read(files)
                self._stamp = stamp
        except (OSError, ValueError) as error:
            _log.warning("tls.not_reloaded cause=%s", error)
        return self._current


def require_encryption(target: str, security: ChannelSecurity) -> None:
    """Refuse to send a credential in plaintext to another machine.

    Raises:
        PlaintextRefused: the target is not on this machine, and the connection would not be encrypted.
    """
    if not security.encrypted and not is_local(target):
        raise PlaintextRefused(
            f"the credential would travel to {target} in plaintext; use tls=True or tls=TLS(ca_file=...), or "
            "allow_plaintext=True if the network itself encrypts it",
            code=grpc.StatusCode.UNAUTHENTICATED,
            metadata={"target": target},
        )


def _paths(files: TLS) -> list[Path]:
    return [Path(path) for path in (files.ca_file, files.certificate_file, files.key_file) if path is not None]


def _stamp(files: TLS) -> _Stamp:
    """Return modification times, sizes and inodes, following links as those of a mounted secret."""
    found = [path.stat() for path in _paths(files)]
    return tuple((status.st_mtime_ns, status.st_size, status.st_ino) for status in found)


def _read(files: TLS) -> grpc.ChannelCredentials:
    """Read and check the files: gRPC would report a wrong one only as a lost connection."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    ca, certificate, key = (
        None if path is None else Path(path) for path in (files.ca_file, files.certificate_file, files.key_file)
    )
    try:
        if ca is not None:
            context.load_verify_locations(ca)
        if certificate is not None and key is not None:
            # Without a password, OpenSSL would ask for that of an encrypted key on the terminal.
            context.load_cert_chain(certificate, key, password="")
    except ssl.SSLError as error:
        names = ", ".join(map(str, _paths(files)))
        msg = f"unusable PEM, or a certificate and key that do not match: {names} ({error.reason or 'no PEM'})"
        raise ValueError(msg) from error
    return grpc.ssl_channel_credentials(
        None if ca is None else ca.read_bytes(),
        None if key is None else key.read_bytes(),
        None if certificate is None else certificate.read_bytes(),
    )
