"""The gateway's address, from what Locust users write as a host."""

from typing import Final

from load.run_config import InvalidRunConfig

_GRPC_SCHEMES: Final = ("dns", "ipv4", "ipv6", "unix")


def target_of(host: str) -> str:
    """Return the gRPC target of a host: `host:port`, `http://host:port`, or a target of gRPC's own.

    Raises:
        InvalidRunConfig: it has no port, a path, or asks for TLS, which the load suite does not speak.
    """
    text = host.strip()
    scheme, separator, rest = text.partition("://")
    if text.startswith("unix:") or (separator and scheme in _GRPC_SCHEMES):
        return text
    if separator and scheme != "http":
        raise InvalidRunConfig(f"{host!r} asks for {scheme}, but load goes over plaintext gRPC; write host:port")
    address = (rest if separator else text).rstrip("/")
    name, _, port = address.rpartition(":")
    if not name or not port.isdigit() or not 0 < int(port) < 65_536 or "/" in address:
        raise InvalidRunConfig(f"{host!r} is no gRPC address; write host:port, such as 127.0.0.1:50051")
    return address
