"""Which gateways there are, and which of them to try next: pure, the caller waits and connects."""

from collections.abc import Sequence

from liveavatar.gateway.backoff import Backoff
from liveavatar.gateway.channel import moved, transient
from liveavatar.gateway.errors import GatewayError

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
    return found


class Route:
    """The target that a session's streams go to. Both go to the same one, and leave it together."""

    def __init__(self, count: int, start: int = 0) -> None:
        """Begin at one of `count` targets."""
        self.count = count
        self.current = start

    def leave(self, target: int) -> None:
        """Go on to the next one, unless the other stream has done so already."""
        if target == self.current:
            self.current = (target + 1) % self.count


class Retries:
    """The attempts of one stream: each target once, then a growing delay, then each again."""

    def __init__(self, route: Route, backoff: Backoff | None = None) -> None:
        self.route = route
        self.attempt_count = 0
        """Attempts since the last success."""
        self._backoff = backoff or Backoff()
        self._tried: set[int] = set()
        self._refused: set[int] = set()

    @property
    def round_count(self) -> int:
        """Delays given since the connection last was stable."""
        return self._backoff.attempt

    def reached(self) -> None:
        """A target has taken the stream."""
        self.attempt_count = 0
        self._tried.clear()
        self._refused.clear()

    def stable(self) -> None:
        """The connection has lasted, so the next delay is short again."""
        self._backoff.reset()

    def next_delay_s(
        self, target: int, error: GatewayError, *, held: bool = False, lost_s: float = ADOPTION_S
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
        if not transient(error):
            self._refused.add(target)
            everywhere = len(self._refused) == self.route.count
            if not moved(error) or (everywhere and lost_s >= ADOPTION_S):
                return None
        self.attempt_count += 1
        if held and not error.reason:
            return self._backoff.next_delay_s(error.retry_after)
        self.route.leave(target)
        self._tried.add(target)
        if len(self._tried) < self.route.count:
            return 0.0
        self._tried.clear()
        return self._backoff.next_delay_s(error.retry_after)
