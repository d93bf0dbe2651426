"""Rules for the hosts that LiveAvatar names: command sockets to open, and addresses of rooms for callers.

Somebody who controls LiveAvatar's answers must not choose where the gateway connects in its own network, nor what
a caller's browser opens. The rules are functions of an address; `Egress` alone resolves names.
"""

import asyncio
import ipaddress
import re
import socket
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum, unique
from typing import Final, NoReturn
from urllib.parse import urlsplit

import structlog

from liveavatar_gateway.core.errors import UpstreamAddressRefused, UpstreamUnreachable
from liveavatar_gateway.upstream.model import Started
from liveavatar_gateway.upstream.proxies import Proxies, Proxy

_log = structlog.get_logger(__name__)

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Resolve = Callable[[str, int], Awaitable[Sequence[str]]]

SOCKET: Final = "ws_url"
ROOM: Final = "livekit_url"
_SCHEMES: Final = {SOCKET: (("wss",), ("ws",)), ROOM: (("wss", "https"), ("ws", "http"))}
"""Schemes of each kind of address: those for any host, and those for hosts of the local network."""
_PORTS: Final = {"ws": 80, "http": 80, "wss": 443, "https": 443}
_LABEL: Final = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_NAME: Final = rf"{_LABEL}(?:\.{_LABEL})*"
_URL: Final = re.compile(
    rf"(?P<scheme>[A-Za-z]+)://(?P<host>\[[0-9A-Fa-f.]*:[0-9A-Fa-f:.]*\]|{_NAME}\.?)(?::(?P<port>[0-9]{{1,5}}))?"
    r"(?:[/?][A-Za-z0-9\-._~:/?\[\]@!$&'()*+,;=%]*)?",
    re.ASCII,
)
"""Only what every parser reads alike: no credentials, no fragment, no backslash, and no character beyond ASCII."""
_NUMBER: Final = re.compile(r"[0-9]+|0[xX][0-9A-Fa-f]*", re.ASCII)
"""Last label of a host that parsers read as an IPv4 address, such as `127.1` or `0x7f000001`."""
_PATTERN: Final = re.compile(rf"(?:\*\.)?{_NAME}|\[?[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*\]?", re.ASCII)
_MAX_HOST_CHARS: Final = 253
_MAX_ADDRESSES: Final = 8
"""Addresses of a host that are tried; a name server may send hundreds."""
_LEARN_TIMEOUT_S: Final = 3.0
"""Longest wait for the address of the API before an adopted session is shown without its room."""
_LEARN_AGAIN_S: Final = 10.0
"""Time after a failed attempt in which no adoption waits again: a restart may adopt hundreds of sessions."""
_LOCALHOST: Final = "localhost"

_STAND_INS: Final = tuple(map(ipaddress.ip_network, ("198.18.0.0/15", "240.0.0.0/4", "2001:2::/48")))
"""Networks whose addresses local name servers answer in place of public ones.

VPN clients use 198.18.0.0/15, Istio 240.240.0.0/16 and 2001:2::/48.
"""
_LOCAL: Final = (
    *map(
        ipaddress.ip_network,
        ("127.0.0.0/8", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "::1/128", "fc00::/7"),
    ),
    *_STAND_INS,
)
"""Loopback, private networks, networks behind a carrier's address translation, and stand-ins."""
_BROADCAST: Final = ipaddress.IPv4Address("255.255.255.255")
_METADATA: Final = frozenset(
    map(
        ipaddress.ip_address,
        ("169.254.169.254", "168.63.129.16", "100.100.100.200", "192.0.0.192", "fd00:ec2::254", "fd20:ce::254"),
    )
)
"""Services of clouds that hand out credentials, also those outside of link-local networks."""
_NEVER: Final = tuple(
    map(
        ipaddress.ip_network,
        ("192.0.0.0/24", "192.88.99.0/24", "2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20"),
    )
)
"""Special networks that `is_global` of some Python versions counts as public: protocols, relays, tunnels."""
_UNICAST: Final = ipaddress.IPv6Network("2000::/3")
"""Only part of IPv6 that is assigned to public hosts. Source: IANA IPv6 Global Unicast Address Space."""
_NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")


@unique
class Reach(Enum):
    """Network in which an address is."""

    PUBLIC = "public"
    LOCAL = "local"
    """Loopback, private networks and stand-ins: only for gateways whose API is there too."""
    NEVER = "never"
    """Link-local, multicast, broadcast, reserved, tunnels, and metadata services of clouds."""


def reach_of(address: Address) -> Reach:
    """Return the network of an address, also of an IPv4 address inside an IPv6 address."""
    if isinstance(address, ipaddress.IPv6Address):
        if (mapped := address.ipv4_mapped) is not None:
            return reach_of(mapped)
        if address in _NAT64:
            inside = reach_of(ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF))
            return Reach.PUBLIC if inside is Reach.PUBLIC else Reach.NEVER
    if address in _METADATA or address == _BROADCAST:
        return Reach.NEVER
    if _is_in(address, _LOCAL):
        return Reach.LOCAL
    return Reach.PUBLIC if _is_public(address) else Reach.NEVER


def _is_public(address: Address) -> bool:
    if isinstance(address, ipaddress.IPv6Address) and (address.scope_id or address not in _UNICAST):
        return False
    is_ordinary = address.is_global and not (address.is_multicast or address.is_reserved)
    return is_ordinary and not _is_in(address, _NEVER)


def _is_in(address: Address, networks: Sequence[Network]) -> bool:
    return any(address in network for network in networks if network.version == address.version)


def _is_stand_in(address: str) -> bool:
    ip = ipaddress.ip_address(address)
    if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped is not None:
        ip = ip.ipv4_mapped
    return _is_in(ip, _STAND_INS)


def reach_of_host(host: str) -> Reach | None:
    """Return the network of a literal address or of a name of this machine; None for any other name."""
    if host == _LOCALHOST or host.endswith(f".{_LOCALHOST}"):
        return Reach.LOCAL
    try:
        return reach_of(ipaddress.ip_address(host))
    except ValueError:
        return None


def read_patterns(text: str) -> tuple[str, ...]:
    """Parse a list of host patterns: names, `*.` with a domain for its subdomains, or addresses.

    Raises:
        ValueError: an entry is no pattern; the message names it.
    """
    entries = text.replace(",", " ").split()
    for entry in entries:
        if not _PATTERN.fullmatch(entry):
            raise ValueError(f"{entry!r} is not a host such as `ws.example.com` or `*.example.com`")
    return tuple(entry.lower().strip("[]") for entry in entries)


def is_listed(host: str, patterns: Sequence[str]) -> bool:
    """Return True if a pattern matches the host, or if there is no pattern."""
    if not patterns:
        return True
    return any(host.endswith(one[1:]) if one.startswith("*.") else host == one for one in patterns)


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Scheme, host and port of an address that has the right form."""

    scheme: str
    host: str
    """In lower case, without brackets and without a final dot."""
    port: int


class Malformed(ValueError):
    """Address without the right form; `cause` is a word for programs."""

    def __init__(self, cause: str) -> None:
        super().__init__(cause)
        self.cause = cause


def read_target(url: str) -> Target:
    """Parse an address.

    Raises:
        Malformed: parsers may disagree on its host, or it has credentials or a fragment.
    """
    found = _URL.fullmatch(url)
    if found is None:
        authority = re.split(r"[/?#\\]", url.partition("://")[2], maxsplit=1)[0]
        if "@" in authority:
            raise Malformed("userinfo")
        raise Malformed("fragment" if "#" in url else "form")
    scheme = found["scheme"].lower()
    host = found["host"].lower().strip("[]").removesuffix(".")
    port = int(found["port"] or _PORTS.get(scheme, 0))
    if len(host) > _MAX_HOST_CHARS or port > 65_535 or (found["port"] and port == 0):
        raise Malformed("form")
    is_literal = found["host"].startswith("[") or _NUMBER.fullmatch(host.rpartition(".")[2]) is not None
    if is_literal and (found["host"].endswith(".") or not _is_address(host)):
        raise Malformed("form")
    return Target(scheme=scheme, host=host, port=port)


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


async def resolve_host(host: str, port: int) -> list[str]:
    """Return the addresses of a host.

    Raises:
        OSError: the name cannot be resolved.
    """
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(sockaddr[0]) for _, _, _, _, sockaddr in found))


@dataclass(frozen=True, slots=True, kw_only=True)
class EgressConfig:
    """Hosts that LiveAvatar may name."""

    api_url: str = "https://api.liveavatar.com"
    """Address of the API. If it is in the local network, sockets and rooms may be there too, also without TLS."""
    hosts: tuple[str, ...] = ()
    """Patterns of the hosts that are allowed, see `read_patterns`; empty allows each host that the rules allow."""
    proxies: Proxies = field(default_factory=Proxies)
    """Proxies through which command sockets are opened."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """Way to a command socket that was checked."""

    url: str = field(repr=False)
    port: int
    addresses: Sequence[str] = ()
    """Addresses that were checked, to be connected to without another resolution; empty for a proxy."""
    proxy: Proxy | None = None
    """Proxy that resolves the host; None for a direct connection."""


class Egress:
    """Guard of the hosts that LiveAvatar names."""

    def __init__(self, config: EgressConfig, *, resolve: Resolve = resolve_host) -> None:
        """Prepare; names are resolved with `resolve`, given host and port."""
        self._config = config
        self._resolve = resolve
        api = urlsplit(config.api_url)
        self._api_host = (api.hostname or "").removesuffix(".")
        self._api_port = api.port or _PORTS.get(api.scheme, 0)
        self._api_is_local = reach_of_host(self._api_host) is Reach.LOCAL
        """As far as known: a name is resolved anew when it matters."""
        self._api_has_stand_ins = False
        """A local name server answers in place of the API's own, which is public as far as anybody knows."""
        self._is_known = False
        self._learning = asyncio.Lock()
        self._learn_again_s = 0.0
        """Monotonic time before which a failed attempt is not repeated."""

    async def learn(self) -> None:
        """Find out once if the API is in the local network, for `may_show_room`.

        All callers share an attempt, and do not wait for another until some time after it failed.
        """
        async with self._learning:
            if self._is_known or time.monotonic() < self._learn_again_s:
                return
            try:
                async with asyncio.timeout(_LEARN_TIMEOUT_S):
                    await self._is_api_local()
            except (UpstreamUnreachable, TimeoutError):
                self._learn_again_s = time.monotonic() + _LEARN_AGAIN_S
                _log.warning("egress.api_unresolved", host=self._api_host)

    async def check(self, started: Started, *, timeout_s: float) -> None:
        """Check the addresses of a session that was just started.

        A name that cannot be resolved now is left to the socket, whose connection is tried again.

        Raises:
            UpstreamAddressRefused: the session cannot be used and must be stopped.
        """
        try:
            if not started.ws_url:
                # A hosted agent drives the avatar: there is no socket to check.
                async with asyncio.timeout(timeout_s):
                    await self._check_room(started)
                return
            await self.route(started, timeout_s=timeout_s)
        except (UpstreamUnreachable, TimeoutError):
            _log.info("egress.unresolved", upstream_session=started.session_id)

    async def route(self, started: Started, *, timeout_s: float) -> Route:
        """Return the way to the command socket of a session, whose addresses are checked anew.

        Addresses may come from a registry, where they may have been changed, and names may have moved.

        Raises:
            UpstreamAddressRefused: an address of the session is not allowed.
            UpstreamUnreachable: a name cannot be resolved within `timeout_s`.
        """
        try:
            async with asyncio.timeout(timeout_s):
                return await self._route(started)
        except TimeoutError as error:
            raise _unresolved("no answer in time") from error

    async def check_room(self, started: Started, *, timeout_s: float) -> None:
        """Check the address of a session's room to which the gateway itself is about to connect.

        Other than for a browser, its addresses are looked up, and must be public. The SDK of LiveKit resolves the
        name again, so that a name server that changes its answer meanwhile is not caught.

        Raises:
            UpstreamAddressRefused: the address is not allowed.
            UpstreamUnreachable: the name cannot be resolved within `timeout_s`.
        """
        target = self._read(ROOM, started.room_url, started)
        try:
            async with asyncio.timeout(timeout_s):
                await self._require_addresses(ROOM, target, started)
        except TimeoutError as error:
            raise _unresolved("no answer in time") from error

    async def _route(self, started: Started) -> Route:
        await self._check_room(started)
        target = self._read(SOCKET, started.ws_url, started)
        proxy = self._config.proxies.of_url(started.ws_url)
        addresses: Sequence[str] = ()
        if proxy is not None:
            await self._require_reach(SOCKET, target, {reach_of_host(target.host) or Reach.PUBLIC}, started)
        else:
            addresses = await self._require_addresses(SOCKET, target, started)
        return Route(url=started.ws_url, port=target.port, addresses=addresses, proxy=proxy)

    async def _require_addresses(self, kind: str, target: Target, started: Started) -> Sequence[str]:
        """Look up a host, and return its addresses if all of them are allowed."""
        addresses = await self._addresses(target.host, target.port)
        reaches = {reach_of(ipaddress.ip_address(address)) for address in addresses}
        local = [address for address in addresses if reach_of(ipaddress.ip_address(address)) is Reach.LOCAL]
        are_stand_ins = bool(local) and all(map(_is_stand_in, local))
        await self._require_reach(kind, target, reaches, started, are_stand_ins=are_stand_ins)
        return addresses

    def may_show_room(self, url: str) -> bool:
        """Return True if a caller may be sent the address of a room."""
        if not url:
            return True
        try:
            target = read_target(url)
        except Malformed:
            return False
        everywhere, local = _SCHEMES[ROOM]
        schemes = (*everywhere, *local) if self._api_is_local else everywhere
        reach = reach_of_host(target.host) or Reach.PUBLIC
        is_near = reach is Reach.PUBLIC or (reach is Reach.LOCAL and self._api_is_local)
        return target.scheme in schemes and is_near and is_listed(target.host, self._config.hosts)

    async def _check_room(self, started: Started) -> None:
        if not started.room_url:
            return
        # A browser resolves the name, in its own network.
        target = self._read(ROOM, started.room_url, started)
        await self._require_reach(ROOM, target, {reach_of_host(target.host) or Reach.PUBLIC}, started)

    def _read(self, kind: str, url: str, started: Started) -> Target:
        try:
            target = read_target(url)
        except Malformed as error:
            self._refuse(kind, error.cause, started)
        everywhere, local = _SCHEMES[kind]
        if target.scheme not in (*everywhere, *local):
            self._refuse(kind, "scheme", started, host=target.host)
        if not is_listed(target.host, self._config.hosts):
            self._refuse(kind, "host_not_listed", started, host=target.host)
        return target

    async def _require_reach(
        self, kind: str, target: Target, reaches: set[Reach], started: Started, *, are_stand_ins: bool = False
    ) -> None:
        if Reach.NEVER in reaches:
            self._refuse(kind, "address", started, host=target.host)
        is_plain = target.scheme in _SCHEMES[kind][1]
        if (is_plain or Reach.LOCAL in reaches) and not await self._is_api_local():
            # Stand-ins show that names are answered locally, not that the API is in the local network.
            if are_stand_ins and self._api_has_stand_ins and not is_plain:
                return
            self._refuse(kind, "scheme" if is_plain else "address", started, host=target.host)

    async def _is_api_local(self) -> bool:
        reach = reach_of_host(self._api_host)
        if reach is None and self._config.proxies.of_url(self._config.api_url) is None:
            found = await self._addresses(self._api_host, self._api_port)
            is_local = all(reach_of(ipaddress.ip_address(one)) is Reach.LOCAL for one in found)
            self._api_has_stand_ins = is_local and any(map(_is_stand_in, found))
            self._api_is_local = is_local and not self._api_has_stand_ins
        self._is_known = True
        return self._api_is_local

    async def _addresses(self, host: str, port: int) -> list[str]:
        if _is_address(host):
            return [host]
        try:
            found = list(await self._resolve(host, port))
        except (OSError, ValueError) as error:
            raise _unresolved(type(error).__name__) from error
        if not found:
            raise _unresolved("no address")
        return found[:_MAX_ADDRESSES]

    def _refuse(self, kind: str, cause: str, started: Started, *, host: str = "") -> NoReturn:
        _log.error(
            "upstream.address_refused", upstream_session=started.session_id, address=kind, cause=cause, host=host
        )
        raise refused(kind, cause)


_CAUSES: Final = {
    "userinfo": "it has credentials",
    "fragment": "it has a fragment",
    "form": "it is malformed",
    "scheme": "its scheme is not allowed",
    "host_not_listed": "GATEWAY_UPSTREAM_HOSTS does not list its host",
    "address": "its host is not a public one",
    "redirect": "the server redirects to another address",
}


def refused(kind: str, cause: str) -> UpstreamAddressRefused:
    """Return the error for an address; neither the address, which may be a secret, nor its host is in it."""
    return UpstreamAddressRefused(
        f"LiveAvatar named an address that the gateway does not use ({kind}: {_CAUSES[cause]}); the session is "
        "being stopped; ask the operator of the gateway, whose log names the host",
        address=kind,
        cause=cause,
    )


def _unresolved(cause: str) -> UpstreamUnreachable:
    return UpstreamUnreachable(
        f"the host of LiveAvatar's command socket cannot be resolved: {cause}", retry_after_s=1.0
    )
