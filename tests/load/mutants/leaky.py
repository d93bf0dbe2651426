"""The gateway that never stops one of its sessions upstream, and believes that it did."""

from liveavatar_gateway.__main__ import main
from liveavatar_gateway.upstream.rest import Rest

_LEAKED = 5
_stop = Rest.stop
_stops = 0


async def stop(self: Rest, session_id: str, reason: str) -> bool:
    global _stops  # noqa: PLW0603 - a process is one mutant
    _stops += 1
    return True if _stops == _LEAKED else await _stop(self, session_id, reason)


if __name__ == "__main__":
    Rest.stop = stop  # type: ignore[method-assign]
    main()
