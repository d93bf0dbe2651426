"""The proxy between the gateway and LiveAvatar, if there is one: one decision for REST and for the command socket.

HTTPS_PROXY is for https and wss, HTTP_PROXY for http and ws, ALL_PROXY for what has none of its own, and NO_PROXY
lists hosts that are reached directly. As elsewhere, a name in small letters goes before the same in capitals.
"""

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Self
from urllib.parse import urlsplit

import websockets
from websockets.proxy import parse_proxy

_VARIABLES: Final[Mapping[str, tuple[str, str]]] = {
    "https": ("HTTPS_PROXY", "ALL_PROXY"),
    "wss": ("HTTPS_PROXY", "ALL_PROXY"),
    "http": ("HTTP_PROXY", "ALL_PROXY"),
    "ws": ("HTTP_PROXY", "ALL_PROXY"),
}
"""Variables for each scheme, the first that is set counts."""
_PORTS: Final[Mapping[str, int]] = {"https": 443, "wss": 443, "http": 80, "ws": 80}


class UnusableProxy(ValueError):
    """A variable names a proxy that cannot be used; the message says which and why."""


@dataclass(frozen=True, slots=True)
class Proxy:
    """One proxy, and the variable that names it."""

    variable: str
    url: str = field(repr=False)
    """May hold credentials."""

    @property
    def shown(self) -> str:
        """The proxy for people and logs, without its credentials."""
        scheme, _, rest = self.url.partition("://")
        credentials, at, host = rest.rpartition("@")
        return f"{scheme}://{'***@' if at and credentials else ''}{host} ({self.variable})"

    def check(self) -> None:
        """Refuse what cannot be connected through.

        Raises:
            UnusableProxy: why.
        """
        scheme = self.url.partition("://")[0].lower()
        if scheme not in ("http", "https"):
            raise UnusableProxy(
                f"{self.variable} names a proxy of the kind {scheme!r}; only http:// and https:// are supported. "
                "Name such a proxy, or list LiveAvatar's hosts in NO_PROXY"
            )
        try:
            parse_proxy(self.url)
        except (ValueError, websockets.InvalidProxy) as error:
            # The library's message repeats the address, and with it the credentials.
            why = str(error).removeprefix(f"{self.url} isn't a valid proxy: ") if self.url in str(error) else ""
            raise UnusableProxy(
                f"{self.variable} is no address of a proxy{f' ({why})' if why else ''}; as in http://proxy:3128"
            ) from None


@dataclass(frozen=True, slots=True)
class Proxies:
    """What the environment says of proxies."""

    by_scheme: Mapping[str, Proxy] = field(default_factory=dict)
    exempt: tuple[str, ...] = ()
    """Entries of NO_PROXY."""

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> Self:
        """Read the variables."""
        found = {
            variable: environment.get(variable.lower(), environment.get(variable, "")).strip()
            for variable in ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY", "NO_PROXY")
        }
        by_scheme = {}
        for scheme, variables in _VARIABLES.items():
            named = next((variable for variable in variables if found[variable]), None)
            if named is not None:
                url = found[named]
                by_scheme[scheme] = Proxy(named, url if "://" in url else f"http://{url}")
        entries = found["NO_PROXY"].replace(",", " ").split()
        return cls(by_scheme, tuple(entry.lower() for entry in entries))

    def of_url(self, url: str) -> Proxy | None:
        """Return the proxy through which `url` is reached; None for directly."""
        parts = urlsplit(url)
        proxy = self.by_scheme.get(parts.scheme)
        port = parts.port or _PORTS.get(parts.scheme, 0)
        if proxy is None or any(_names(entry, parts.hostname or "", port) for entry in self.exempt):
            return None
        return proxy

    def socket_proxy(self, api_url: str) -> Proxy | None:
        """Return the proxy for command sockets whose hosts, named by LiveAvatar, are in no NO_PROXY."""
        scheme = "wss" if urlsplit(api_url).scheme == "https" else "ws"
        return None if "*" in self.exempt else self.by_scheme.get(scheme)

    def check(self, api_url: str) -> None:
        """Refuse proxies that calls or sockets would need and cannot be used: sessions would start and fail.

        An API without TLS that is reached directly is an emulator, whose sockets are at the same host.

        Raises:
            UnusableProxy: why.
        """
        proxies = [self.of_url(api_url)]
        if proxies[0] is not None or urlsplit(api_url).scheme == "https":
            proxies.append(self.socket_proxy(api_url))
        for proxy in proxies:
            if proxy is not None:
                proxy.check()


def _names(entry: str, host: str, port: int) -> bool:
    """Return whether an entry of NO_PROXY names a host: "*", a network, or a domain and all below it.

    An entry may have a port, which must then be that of the address.
    """
    if entry == "*":
        return True
    host = host.lower().rstrip(".")
    if (address := _address(host)) is not None:
        try:
            if address in ipaddress.ip_network(entry.strip("[]"), strict=False):
                return True
        except ValueError:
            pass
    name, colon, only = entry.rpartition(":")
    if colon and only.isdigit() and (name.startswith("[") or ":" not in name):
        if int(only) != port:
            return False
        entry = name
    entry = entry.strip("[]").removeprefix("*").removeprefix(".")
    if not entry:
        return False
    return host == entry or (address is None and host.endswith(f".{entry}"))


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None
