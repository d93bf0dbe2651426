"""Suspension of a tenant while it speaks: its sessions end at LiveAvatar, and no other does."""

import asyncio
import time
from typing import Final

from acceptance.auth.stage import stage
from acceptance.line import Line, Outcome, Setting
from liveavatar.gateway.v1 import audio_pb2, session_pb2
from testkit.caller import Caller, refused
from testkit.tenants import caller_with

_WITHIN_S: Final = 5.0
_SESSIONS: Final = 8
_SPEECH: Final = bytes(48_000 * 8)


async def _talking(caller: Caller) -> tuple[str, str, asyncio.Task[int]]:
    """Return the ids of a session that speaks for eight seconds, and the task that returns the outcome."""
    created = await caller.create()
    speech = await caller.speak(created.session.id)
    await speech.say(_SPEECH, "u")

    async def outcome() -> int:
        return (await speech.until("ended")).outcome

    return created.session.id, created.session.upstream_session_id, asyncio.create_task(outcome())


async def _run(setting: Setting) -> Outcome:
    count = _SESSIONS * (4 if setting.long else 1)
    with stage("acme", "beta") as at:
        async with (
            caller_with(at.gateway.address, at.token("acme", "open", "speak", "control")) as acme,
            caller_with(at.gateway.address, at.token("beta", "open", "speak", "control")) as beta,
        ):
            suspended = await asyncio.gather(*(_talking(acme) for _ in range(count)))
            others = await asyncio.gather(*(_talking(beta) for _ in range(count)))
            began_s = time.monotonic()
            at.tenants.tenant("acme", suspended=True)
            while any(at.emulator.runs(upstream_id) for _, upstream_id, _ in suspended):
                if time.monotonic() > began_s + 60:
                    return Outcome(figure="sessions still run after 60 s", passed=False)
                await asyncio.sleep(0.05)
            took_s = time.monotonic() - began_s
            reason = (await refused(acme.create())).reason
            await asyncio.gather(*(task for _, _, task in suspended), return_exceptions=True)
            outcomes = await asyncio.gather(*(task for _, _, task in others))
            unharmed = 0
            for session_id, _, _ in others:
                unharmed += (await beta.get(session_id)).state == session_pb2.SESSION_STATE_READY
    whole = outcomes.count(audio_pb2.UTTERANCE_OUTCOME_COMPLETED)
    return Outcome(
        figure=f"{count} sessions ended in {took_s:.1f} s, then {reason}; of {count} others {unharmed} live on, "
        f"{whole} spoke to the end",
        passed=took_s <= _WITHIN_S and reason == "TENANT_SUSPENDED" and unharmed == whole == count,
    )


SUSPENSION = Line(
    name="suspension",
    goal=f"sessions end at LiveAvatar within {_WITHIN_S:g} s, others untouched",
    run=_run,
    measures_time=True,
)
