"""Addresses as people write them: IPv6 in brackets, and the reason why one cannot be listened on."""

import errno
import socket


def host_port(host: str, port: int) -> str:
    """Join a host and a port; an IPv6 address gets its brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def family(host: str) -> socket.AddressFamily:
    """Return the family of an address to listen on."""
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def listen_problem(host: str, port: int) -> OSError | None:
    """Try to listen with a plain socket and return what the operating system says; None when it can be done."""
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
    """Say why a server cannot listen, and which setting to change.

    Args:
        error: What the operating system said; None when it said nothing.
        host: Address that was to be listened on.
        port: Port that was to be listened on.
        host_setting: Variable of the address.
        port_setting: Variable of the port.
    """
    where = host_port(host, port)
    match error.errno if error is not None else None:
        case errno.EADDRINUSE:
            return f"{port_setting}: cannot listen on {where}: the port is taken; choose another one"
        case errno.EACCES:
            return f"{port_setting}: cannot listen on {where}: this user may not take that port"
        case errno.EADDRNOTAVAIL:
            return f"{host_setting}: cannot listen on {where}: {host} is no address of this machine"
        case errno.EAFNOSUPPORT:
            return f"{host_setting}: cannot listen on {where}: this machine has no addresses of that kind"
    if isinstance(error, socket.gaierror):
        return f"{host_setting}: cannot listen on {where}: {host} is no address and no name that can be resolved"
    why = "it was refused" if error is None else error.strerror or str(error)
    return f"{host_setting}, {port_setting}: cannot listen on {where}: {why}"
