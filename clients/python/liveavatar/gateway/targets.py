"""Targets of a client and the choice of the next target. Pure: the caller waits and connects."""

import ipaddress
from collections.abc import Sequence

from liveavatar.gateway.backoff import Backoff
from liveavatar.gateway.channel import moved, transient
from liveavatar.gateway.credentials import Renewal
from liveavatar.gateway.errors import GatewayError, OwnerMoved

ADOPTION_S = 10.0
"""Time for which a session may be unknown after its gateway died, until another process takes it over."""
_LISTS = ("ipv4:", "ipv6:")
# Schemes of gRPC's own address lists, which contain commas; gRPC chooses among the addresses.


def target_list(target: str | Sequence[str]) -> tuple[str, ...]:
    """Return the addresses in "a:1,b:2" or in a sequence, in order, without duplicates.

    Raises:
        ValueError: no address, an empty address, or an IPv6 address without brackets.
    """
    if not isinstance(target, str):
        names = list(target)
    elif target.startswith(_LISTS):
        names = [target]
    else:
        names = target.split(",")
    found = tuple(dict.fromkeys(name.strip() for name in names))
    if not found or not all(found):
        msg = f'target must be "host:port", a list of them, or several separated by commas; got {target!r}'
        raise ValueError(msg)
    for name in found:
        host = name.rpartition(":")[0]
        if _is_ipv6(host) or _is_ipv6(name):
            msg = f'an IPv6 address needs brackets and a port, such as "[::1]:50051"; got {name!r}'
            raise ValueError(msg)
    return found


def _is_ipv6(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).version == 6
    except ValueError:
        return False


def named_by(error: GatewayError, target: str) -> str:
    """Return the address of the session's owner that a target named; empty when it cannot be used.

    A gateway names the address on which it listens. A wildcard address cannot be called, and a loopback address
    only if the target is on this machine too.
    """
    if not isinstance(error, OwnerMoved):
        return ""
    host, _, port = error.address.rpartition(":")
    host = host.strip("[]")
    if not host or not port.isdecimal() or (_loopback(host) and not is_local(target)):
        return ""
    try:
        ip = ipaddress.ip_address(host)
    except ValueError:
        return error.address
    if ip.is_unspecified:
        return ""
    return f"[{host}]:{port}" if ip.version == 6 else error.address


def is_local(target: str) -> bool:
    """Return True for a target on this machine: a loopback address or a Unix socket."""
    if target.startswith(("unix:", "unix-abstract:")):
        return True
    address = target.removeprefix("ipv4:").removeprefix("ipv6:").rpartition("/")[2]
    return _loopback(address.rpartition(":")[0].strip("[]"))


def _loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class Route:
    """Current target of a session's streams. Both streams use the same target and change it together.

    The target is one of the client's own or an address that one of them named.
    """

    def __init__(self, targets: Sequence[str], start: str = "") -> None:
        """Begin at `start`, or at the first target."""
        self.targets = tuple(targets)
        self.current = start or self.targets[0]
        # The next target after a named address is the first target.
        self._own = self.current if self.current in self.targets else self.targets[-1]

    def leave(self, target: str) -> None:
        """Change to the client's next target, unless the other stream has left `target` already."""
        if target == self.current:
            self.current = self._own = self._next()

    def follow(self, target: str, named: str) -> None:
        """Change to the address that `target` named, unless the other stream has left `target` already."""
        if target == self.current:
            self.current = named
            if named in self.targets:
                self._own = named

    def round(self) -> list[str]:
        """Return each target once, from the current target on."""
        first = self.targets.index(self._next())
        others = self.targets[first:] + self.targets[:first]
        return [self.current, *(target for target in others if target != self.current)]

    def _next(self) -> str:
        return self.targets[(self.targets.index(self._own) + 1) % len(self.targets)]


class Retries:
    """Attempts of one stream: each target once, then a growing delay, then each target again."""

    def __init__(self, route: Route, backoff: Backoff | None = None, *, renewal: Renewal | None = None) -> None:
        """Begin with the route's current target.

        Args:
            route: Order of targets, shared by the streams of a session.
            backoff: Delays between rounds.
            renewal: Permission to try a renewed credential. Default: a refused credential is final.
        """
        self.route = route
        self._renewal = renewal or Renewal(renewable=False)
        self.attempt_count = 0
        """Number of attempts since the last success."""
        self._backoff = backoff or Backoff()
        self._tried: set[str] = set()
        self._followed: set[str] = set()
        self._refused: set[str] = set()

    @property
    def round_count(self) -> int:
        """Number of delays since the connection was stable."""
        return self._backoff.attempt

    def reached(self) -> None:
        """Note that a target accepted the stream."""
        self.attempt_count = 0
        self._renewal.reset()
        self._tried.clear()
        self._followed.clear()
        self._refused.clear()

    def stable(self) -> None:
        """Note that the connection has lasted, so that the next delay is short."""
        self._backoff.reset()

    def next_delay_s(
        self, target: str, error: GatewayError, *, held: bool = False, lost_s: float = ADOPTION_S
    ) -> float | None:
        """Return the seconds to wait before the next attempt, at `route.current`.

        Args:
            target: Target of the failed attempt or broken stream.
            error: Error of that attempt or stream.
            held: True if the target had accepted the stream: then it is tried again first, unless the error has a
                reason of the gateway.
            lost_s: Seconds since the stream broke. Within `ADOPTION_S` no SessionNotFound is final.

        Returns:
            None when no attempt can help: the error is final, or no target knows the session. A refused credential
            is final once a renewed one was tried.
        """
        if self._renewal.allows(error):
            self.attempt_count += 1
            # A gateway that accepts a credential and refuses it at once must not be asked without a pause.
            return self._backoff.next_delay_s() if held else 0.0
        own = set(self.route.targets)
        if not transient(error):
            self._refused.add(target)
            if not moved(error) or (own <= self._refused and lost_s >= ADOPTION_S):
                return None
        self.attempt_count += 1
        if held and not error.reason:
            return self._backoff.next_delay_s(error.retry_after)
        self._tried.add(target)
        named = named_by(error, target)
        if named and named not in self._followed:
            # Once a round: two processes may briefly name each other as the owner.
            self._followed.add(named)
            self.route.follow(target, named)
            return 0.0
        self.route.leave(target)
        if not own <= self._tried:
            return 0.0
        self._tried.clear()
        self._followed.clear()
        return self._backoff.next_delay_s(error.retry_after)
