"""What `GET /_emulator/state` tells: counters of the whole service since its start or its last reset."""

from typing import Any

from liveavatar_emulator.counters import counters_of, nothing_counted
from liveavatar_emulator.service import Emulator


def state_of(emulator: Emulator) -> dict[str, Any]:
    """The counters as JSON."""
    entries = list(emulator.sessions.values())
    totals = nothing_counted()
    totals.update(emulator.forgotten)
    for entry in entries:
        totals.update(counters_of(entry.live.core.recording))
    return {
        "sessions": {
            "active": sum(entry.record.active for entry in entries),
            "started_total": emulator.started_total,
            "ended_total": emulator.ended.total(),
            "ended_by_reason": dict(emulator.ended),
            "minted_waiting": emulator.minted_waiting,
            "recordings_kept": len(entries),
        },
        "sockets_open": sum(entry.live.socket_open for entry in entries),
        "talking": sum(entry.live.core.playback.talking for entry in entries),
        "refusals": dict(emulator.refusals),
        "totals": dict(totals),
        "accounts": [
            {
                "name": account.name,
                "credits": account.balance,
                "overage_minutes": account.overage_minutes,
                "active": len(account.history(active=True)),
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
            "late": emulator.lateness.row(),
        },
    }
