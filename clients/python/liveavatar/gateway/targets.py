"""Which gateways there are, and which of them to try next: pure, the caller waits and connects."""

import ipaddress
from collections.abc import Sequence

from liveavatar.gateway.backoff import Backoff
from liveavatar.gateway.channel import moved, transient
from liveavatar.gateway.errors import GatewayError, OwnerMoved

ADOPTION_S = 10.0
"""How long a session may be unknown after its gateway died: another process has to find it and take it over."""
_LISTS = ("ipv4:", "ipv6:")
# gRPC's own lists of addresses, which hold commas; gRPC chooses among them.


def target_list(target: str | Sequence[str]) -> tuple[str, ...]:
    """The addresses in "a:1,b:2" or in a sequence, in order, each once.

    Raises:
        ValueError: there is none, or one is empty.
    """
    if not isinstance(target, str):
        names = list(target)
    elif target.startswith(_LISTS):
        names = [target]
    else:
        names = target.split(",")
    found = tuple(dict.fromkeys(name.strip() for name in names))
    if not found or not all(found):
        msg = f'target is "host:port", several of them with commas between, or a list of them; got {target!r}'
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
    """The address of the process that has the session, by the word of a target; empty when that leads nowhere.

    A gateway names what it listens on. When that is all addresses it is none to go to, and when it is `localhost`
    it is one of this machine only if the target is.
    """
    if not isinstance(error, OwnerMoved):
        return ""
    host, _, port = error.address.rpartition(":")
    host = host.strip("[]")
    if not host or not port.isdecimal() or (_loopback(host) and not _local(target)):
        return ""
    try:
        ip = ipaddress.ip_address(host)
    except ValueError:
        return error.address
    if ip.is_unspecified:
        return ""
    return f"[{host}]:{port}" if ip.version == 6 else error.address


def _local(target: str) -> bool:
    if target.startswith("unix"):
        return True
    address = target.removeprefix("ipv4:").removeprefix("ipv6:").rpartition("/")[2]
    return _loopback(address.rpartition(":")[0].strip("[]"))


def _loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class Route:
    """The target that a session's streams go to. Both go to the same one, and leave it together.

    It is one of the client's own, or an address that one of these has named.
    """

    def __init__(self, targets: Sequence[str], start: str = "") -> None:
        """Begin at `start`, or at the first one."""
        self.targets = tuple(targets)
        self.current = start or self.targets[0]
        # From an address that is none of its own it goes on to the first one.
        self._own = self.current if self.current in self.targets else self.targets[-1]

    def leave(self, target: str) -> None:
        """Go on to the client's next one, unless the other stream has done so already."""
        if target == self.current:
            self.current = self._own = self._next()

    def follow(self, target: str, named: str) -> None:
        """Go where `target` says that the session is, unless the other stream has left it already."""
        if target == self.current:
            self.current = named
            if named in self.targets:
                self._own = named

    def round(self) -> list[str]:
        """Each target once, beginning with the current one."""
        first = self.targets.index(self._next())
        others = self.targets[first:] + self.targets[:first]
        return [self.current, *(target for target in others if target != self.current)]

    def _next(self) -> str:
        return self.targets[(self.targets.index(self._own) + 1) % len(self.targets)]


class Retries:
    """The attempts of one stream: each target once, then a growing delay, then each again."""

    def __init__(self, route: Route, backoff: Backoff | None = None) -> None:
        self.route = route
        self.attempt_count = 0
        """Attempts since the last success."""
        self._backoff = backoff or Backoff()
        self._tried: set[str] = set()
        self._followed: set[str] = set()
        self._refused: set[str] = set()

    @property
    def round_count(self) -> int:
        """Delays given since the connection last was stable."""
        return self._backoff.attempt

    def reached(self) -> None:
        """A target has taken the stream."""
        self.attempt_count = 0
        self._tried.clear()
        self._followed.clear()
        self._refused.clear()

    def stable(self) -> None:
        """The connection has lasted, so the next delay is short again."""
        self._backoff.reset()

    def next_delay_s(
        self, target: str, error: GatewayError, *, held: bool = False, lost_s: float = ADOPTION_S
    ) -> float | None:
        """How long to wait before the next attempt, which goes to `route.current`.

        Args:
            target: Where the stream was, or was tried.
            error: What it broke with.
            held: Whether the target had taken the stream: then it is the first to be asked again, unless it has
                said itself that it is the wrong one.
            lost_s: How long ago the stream broke. In the first `ADOPTION_S` nobody's word is final that the
                session is unknown.

        Returns:
            None when no attempt can help: the error is final, or each target has said that it is not the one.
        """
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
            # Each once a round: two processes may each take the other for the owner for a moment.
            self._followed.add(named)
            self.route.follow(target, named)
            return 0.0
        self.route.leave(target)
        if not own <= self._tried:
            return 0.0
        self._tried.clear()
        self._followed.clear()
        return self._backoff.next_delay_s(error.retry_after)
