"""CPU of the gateway for speech with gRPC's own listener, and without it."""

import statistics
from typing import Final

from acceptance.cpu import cpu_s, speak_in_chunks
from acceptance.line import Line, Outcome, Setting
from testkit import processes
from testkit.caller import caller

_WITHOUT: Final = {"GRPC_EXPERIMENTS": "-event_engine_listener"}


async def _run(setting: Setting) -> Outcome:
    rounds, sessions, seconds = (5, 30, 10.0) if setting.long else (3, 10, 3.0)
    costs: dict[str, list[float]] = {"with": [], "without": []}
    with (
        processes.emulator() as emulator,
        processes.gateway(emulator.url) as own,
        processes.gateway(emulator.url, variables=_WITHOUT) as other,
    ):
        places = {"with": own, "without": other}
        for number in range(rounds):
            for kind in sorted(places, reverse=bool(number % 2)):
                place = places[kind]
                async with caller(place.address) as speaker:
                    began_s = cpu_s(place.process.pid)
                    await speak_in_chunks(speaker, sessions, seconds)
                    used_s = cpu_s(place.process.pid) - began_s
                costs[kind].append(used_s / (sessions * seconds))
    ratios = [one / other for one, other in zip(costs["with"], costs["without"], strict=True)]
    medians_ms = {kind: statistics.median(values) * 1e3 for kind, values in costs.items()}
    return Outcome(
        figure=f"{medians_ms['with']:.2f} ms with, {medians_ms['without']:.2f} ms without per second of audio in "
        f"chunks of 20 ms: {statistics.median(ratios):.2f} x ({min(ratios):.2f} to {max(ratios):.2f})",
        passed=True,
    )


LISTENER: Final = Line(
    name="cost of the listener",
    goal="printed; the listener is on (docs/decisions/0019-grpcs-own-listener.md)",
    run=_run,
    in_short=False,
    measures_time=True,
)
