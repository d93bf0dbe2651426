"""Response of `GET /_emulator/state`: counters of the whole service since its start or its last reset."""

from typing import Any

from liveavatar_emulator.counters import counters_of, zero_counters
from liveavatar_emulator.service import Emulator


def state_of(emulator: Emulator) -> dict[str, Any]:
    """Return the counters as JSON."""
    sessions = emulator.sessions
    totals = zero_counters()
    totals.update(sessions.forgotten)
    for started in sessions:
        totals.update(counters_of(started.driver.session.recording))
    return {
        "sessions": {
            "active": len(sessions.active()),
            "started_total": sessions.started_total,
            "ended_total": sessions.ended.total(),
            "ended_by_reason": dict(sessions.ended),
            "minted_waiting": sessions.minted_waiting,
            "recordings_kept": len(sessions),
        },
        "sockets_open": sum(started.driver.socket_open for started in sessions),
        "talking": sum(started.driver.session.playback.talking for started in sessions),
        "refusals": dict(emulator.refusals),
        "totals": dict(totals),
        "accounts": [
            {
                "name": account.name,
                "credits": account.balance,
                "overage_minutes": account.overage_minutes,
                "active": len(account.history(active=True)),
                "peak_slots": account.peak_slots,
            }
            for account in emulator.accounts
        ],
        "faults": {
            "armed": len(emulator.faults.armed()),
            "fired": emulator.faults.fired.total(),
            "fired_by_kind": dict(emulator.faults.fired),
        },
        "audio_kept_bytes": emulator.audio_budget.used_bytes,
        "clock": {
            "mode": emulator.clock.mode,
            "rate": emulator.clock.rate,
            "speed": emulator.settings.speed,
            "now_mono_s": emulator.clock.now_s(),
            "late": emulator.timer_lag.row(),
        },
    }
