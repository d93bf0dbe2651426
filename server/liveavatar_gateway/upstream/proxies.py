"""Proxies between the gateway and LiveAvatar, chosen alike for REST and command sockets.

HTTPS_PROXY applies to https and wss, HTTP_PROXY to http and ws, ALL_PROXY to schemes without a variable, and
NO_PROXY lists hosts that are reached directly. As usual, a lower-case variable takes precedence over an upper-case
one.
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
"""Variables of each scheme, in order of precedence."""
_PORTS: Final[Mapping[str, int]] = {"https": 443, "wss": 443, "http": 80, "ws": 80}


class UnusableProxy(ValueError):
    """Unusable proxy; the message names the variable and the cause."""


@dataclass(frozen=True, slots=True)
class Proxy:
    """Proxy, and the variable that names it."""

    variable: str
    url: str = field(repr=False)
    """Address, which may hold credentials."""

    @property
    def shown(self) -> str:
        """Address for output and logs, without credentials."""
        scheme, _, rest = self.url.partition("://")
        credentials, at, host = rest.rpartition("@")
        return f"{scheme}://{'***@' if at and credentials else ''}{host} ({self.variable})"

    def check(self) -> None:
        """Refuse an unusable proxy.

        Raises:
            UnusableProxy: the scheme is not supported, or the address is invalid.
        """
        scheme = self.url.partition("://")[0].lower()
        if scheme not in ("http", "https"):
            raise UnusableProxy(
                f"{self.variable} names a {scheme!r} proxy; only http:// and https:// are supported. "
                "Name such a proxy, or list LiveAvatar's hosts in NO_PROXY"
            )
        try:
            parse_proxy(self.url)
        except (ValueError, websockets.InvalidProxy) as error:
            # The library's message repeats the address, including credentials.
            cause = str(error).removeprefix(f"{self.url} isn't a valid proxy: ") if self.url in str(error) else ""
            raise UnusableProxy(
                f"{self.variable} is not a proxy address{f' ({cause})' if cause else ''}; expected, for example, http://proxy:3128"
            ) from None


@dataclass(frozen=True, slots=True)
class Proxies:
    """Proxies named by environment variables."""

    by_scheme: Mapping[str, Proxy] = field(default_factory=dict)
    exempt: tuple[str, ...] = ()
    """Entries of NO_PROXY, in lower case."""

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> Self:
        """Read the variables of an environment."""
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
        """Return the proxy for `url`; None for a direct connection."""
        parts = urlsplit(url)
        proxy = self.by_scheme.get(parts.scheme)
        port = parts.port or _PORTS.get(parts.scheme, 0)
        if proxy is None or any(_matches(entry, parts.hostname or "", port) for entry in self.exempt):
            return None
        return proxy

    def socket_proxy(self, api_url: str) -> Proxy | None:
        """Return the proxy for command sockets, assuming that NO_PROXY does not list their hosts."""
        scheme = "wss" if urlsplit(api_url).scheme == "https" else "ws"
        return None if "*" in self.exempt else self.by_scheme.get(scheme)

    def check(self, api_url: str) -> None:
        """Refuse unusable proxies for REST or sockets: sessions would start, be billed and fail.

        An API that is reached directly and without TLS is an emulator, whose sockets are at the same host.

        Raises:
            UnusableProxy: the scheme is not supported, or the address is invalid.
        """
        proxies = [self.of_url(api_url)]
        if proxies[0] is not None or urlsplit(api_url).scheme == "https":
            proxies.append(self.socket_proxy(api_url))
        for proxy in proxies:
            if proxy is not None:
                proxy.check()


def _matches(entry: str, host: str, port: int) -> bool:
    """Return True if an entry of NO_PROXY matches a host: "*", a network, or a domain with its subdomains.

    If the entry has a port, the port must match too.
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
