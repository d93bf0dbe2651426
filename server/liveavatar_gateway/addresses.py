"""Addresses with ports, IPv6 in brackets, and errors of addresses that cannot be bound."""

import errno
import socket


def host_port(host: str, port: int) -> str:
    """Join a host and a port; an IPv6 address gets its brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def family(host: str) -> socket.AddressFamily:
    """Return the family of an address to listen on."""
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def listen_problem(host: str, port: int) -> OSError | None:
    """Try to listen with a plain socket; return the operating system's error, or None if it succeeds."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        for kind, _, _, _, address in found[:1]:
            with socket.socket(kind, socket.SOCK_STREAM) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(address)
                probe.listen()
    except OSError as error:
        return error
    return None


def listen_refusal(error: OSError | None, host: str, port: int, *, host_setting: str, port_setting: str) -> str:
    """Return the cause for which a server cannot listen, and the setting to change.

    Args:
        error: Error of the operating system; None without one.
        host: Listen address.
        port: Listen port.
        host_setting: Variable of the address.
        port_setting: Variable of the port.
    """
    where = host_port(host, port)
    match error.errno if error is not None else None:
        case errno.EADDRINUSE:
            return f"{port_setting}: cannot listen on {where}: the port is in use; choose another port"
        case errno.EACCES:
            return f"{port_setting}: cannot listen on {where}: this user may not use the port"
        case errno.EADDRNOTAVAIL:
            return f"{host_setting}: cannot listen on {where}: {host} is not an address of this machine"
        case errno.EAFNOSUPPORT:
            return f"{host_setting}: cannot listen on {where}: this machine has no addresses of this family"
    if isinstance(error, socket.gaierror):
        return f"{host_setting}: cannot listen on {where}: {host} is not an address or a name that resolves"
    cause = "the operating system refused" if error is None else error.strerror or str(error)
    return f"{host_setting}, {port_setting}: cannot listen on {where}: {cause}"
