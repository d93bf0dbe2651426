"""Cost of a session to which nobody listens: the same whether or not the gateway has heard the users of others."""

import asyncio
import statistics
from typing import Final

from acceptance.cpu import CHUNKS_PER_S, cpu_s, speak_in_chunks
from acceptance.line import Line, Outcome, Setting
from acceptance.voice.stage import own_rooms, stage
from liveavatar.gateway.v1 import session_pb2
from testkit import processes
from testkit.caller import caller as connect
from testkit.users import singing, user_token

_ROOM: Final = "heard-before"
_HEARD_S: Final = 2.0
_SETTLED_S: Final = 3.0
_IDLE_S: Final = 5.0


async def _hear(gateway: processes.Gateway, url: str, token: str) -> None:
    """Let a gateway hear the user of one session, which ends."""
    async with connect(gateway.address) as caller, singing(url, token, 440):
        made = await caller.create(livekit_room=session_pb2.LiveKitRoom(name=_ROOM))
        hearing = await caller.listen(made.session.id)
        while len(hearing.heard("ann")) < _HEARD_S * 48_000:
            await hearing.credit(len((await hearing.until("audio")).audio))
        await caller.end(made.session.id)


async def _run(setting: Setting) -> Outcome:
    rounds, sessions, seconds = (5, 20, 10.0) if setting.long else (3, 10, 3.0)
    speaking: dict[str, list[float]] = {"never": [], "before": []}
    idle: dict[str, float] = {}
    with (
        stage() as at,
        # Without rooms, so that the avatars take no CPU from what is measured.
        processes.emulator() as emulator,
        processes.gateway(emulator.url, **own_rooms(at.livekit)) as never,
        processes.gateway(emulator.url, **own_rooms(at.livekit)) as before,
    ):
        gateways = {"never": never, "before": before}
        await _hear(before, at.livekit.url, user_token(at.livekit, _ROOM, "ann"))
        async with connect(never.address) as one, connect(before.address) as other:
            callers = {"never": one, "before": other}
            await asyncio.sleep(_SETTLED_S)
            began_s = {kind: cpu_s(gateway.process.pid) for kind, gateway in gateways.items()}
            await asyncio.sleep(_IDLE_S)
            idle = {kind: (cpu_s(gateways[kind].process.pid) - began_s[kind]) / _IDLE_S for kind in gateways}
            for number in range(rounds):
                for kind in sorted(gateways, reverse=bool(number % 2)):
                    pid = gateways[kind].process.pid
                    used_s = cpu_s(pid)
                    await speak_in_chunks(callers[kind], sessions, seconds)
                    speaking[kind].append((cpu_s(pid) - used_s) / (sessions * seconds * CHUNKS_PER_S))
    spread = max(max(values) - min(values) for values in speaking.values())
    medians = {kind: statistics.median(values) for kind, values in speaking.items()}
    return Outcome(
        figure=f"never heard {medians['never'] * 1e6:.1f} us, heard before {medians['before'] * 1e6:.1f} us per "
        f"chunk ({medians['before'] / medians['never']:.2f} x), spread {spread * 1e6:.1f} us; idle "
        f"{idle['never']:.1%} and {idle['before']:.1%} of a core",
        passed=medians["before"] - medians["never"] <= spread,
    )


QUIET_SESSIONS: Final = Line(
    name="nobody listens",
    goal="CPU of speech without a listener unchanged, within the spread of the run",
    run=_run,
    measures_time=True,
)
