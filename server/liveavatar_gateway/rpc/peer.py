"""Address of a caller: that of its connection, or behind trusted proxies the address that they forward."""

import ipaddress
import re
from collections.abc import Iterable, Sequence
from typing import Final, TypeAlias
from urllib.parse import unquote

FORWARDED_HEADER: Final = "x-forwarded-for"
_MAX_HOPS: Final = 32
"""Largest number of forwarded addresses that are read, from the nearest on."""
_MAX_UNKNOWN_CHARS: Final = 100
_BRACKETED: Final = re.compile(r"\[([^\]]*)\](?::\d+)?")
_WITH_PORT: Final = re.compile(r"([\d.]+):\d+")

_Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address
Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network


def networks(text: str) -> tuple[Network, ...]:
    """Return the networks in a list, separated by commas or spaces, such as "10.0.0.0/8, 2001:db8::1".

    Raises:
        ValueError: an entry is neither an address nor a network.
    """
    return tuple(ipaddress.ip_network(entry) for entry in re.split(r"[,\s]+", text) if entry)


def peer_address(peer: str, forwarded: Iterable[str], trusted: Sequence[Network]) -> str:
    """Return the IP address of a caller without its port; "unix" for a local socket.

    Each proxy appends the address of its own peer to `x-forwarded-for`, so only what trusted proxies have appended
    is believed: the result is the last address that is not one of theirs.

    Args:
        peer: Peer of the connection as gRPC names it, such as "ipv4:192.0.2.1:4711".
        forwarded: Values of the headers `x-forwarded-for`, in order.
        trusted: Networks of the proxies; with none, the headers are ignored.
    """
    kind, _, rest = peer.partition(":")
    if kind.startswith("unix"):
        return "unix"
    nearest = _address(unquote(rest)) if kind in ("ipv4", "ipv6") else None
    if nearest is None:
        return "".join(char for char in peer[:_MAX_UNKNOWN_CHARS] if char.isprintable())
    if _is_trusted(nearest, trusted):
        hops = ",".join(forwarded).rsplit(",", _MAX_HOPS)[-_MAX_HOPS:]
        for hop in reversed(hops):
            address = _address(hop.strip())
            if address is None:
                # Nothing before an unreadable address can be attributed to a trusted proxy.
                break
            nearest = address
            if not _is_trusted(address, trusted):
                break
    return str(nearest)


def _is_trusted(address: _Address, trusted: Sequence[Network]) -> bool:
    return any(address in network for network in trusted)


def _address(text: str) -> _Address | None:
    """Return the address in "1.2.3.4", "1.2.3.4:80", "2001:db8::1", "[2001:db8::1]:80"; None for other texts."""
    found = _BRACKETED.fullmatch(text) or _WITH_PORT.fullmatch(text)
    try:
        address = ipaddress.ip_address(found[1] if found else text)
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address
