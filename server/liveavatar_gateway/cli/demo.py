"""`liveavatar-gateway demo`: a complete call without an account, with checks of its result."""

import importlib.util
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.core import ParameterSource

from liveavatar_gateway.cli.output import EX_FAILED, fail, print_json, stoppable

if TYPE_CHECKING:
    from liveavatar_demo.timeline import Timeline


@click.command()
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    default=Path("build/demo/avatar.wav"),
    show_default=True,
    help="WAV file to write, with the speech that was heard.",
)
@click.option(
    "--ready-delay-ms",
    type=click.IntRange(0, 10_000),
    default=2500,
    show_default=True,
    help="Time until the emulated avatar is ready. LiveAvatar takes about the default.",
)
@click.option("--watch", is_flag=True, help="Repeat the call until Ctrl-C, to have time to watch.")
@click.option(
    "--voice", is_flag=True, help="Talk with the avatar yourself, on a page in your browser, until Ctrl-C."
)
@click.option(
    "--port",
    type=click.IntRange(0, 65_535),
    default=8790,
    show_default=True,
    help="Port of the page of --voice, on 127.0.0.1; 0 takes a free one.",
)
@click.option("--json", "as_json", is_flag=True, help="Print a JSON report at the end instead of the timeline.")
@click.pass_context
def demo(
    context: click.Context, out: Path, ready_delay_ms: int, port: int, *, watch: bool, voice: bool, as_json: bool
) -> None:
    """Run a complete call without account, key or preparation. Takes about 20 seconds.

    Starts an emulator of LiveAvatar and a gateway as processes on free ports, then acts as an agent: opens a
    session, speaks before the avatar is ready, speaks again and is interrupted, and ends the session. Both
    recordings are at 22050 Hz, so the gateway resamples them.

    The emulator records the audio that it receives. The demo compares it with the recordings, sample for sample,
    and checks that no audio was sent too early, too late or twice. The speech that was heard is written to a WAV
    file.

    With a LiveKit server the avatar also has a face, in a real room, and the demo prints the address of a page to
    watch it. The server is named by LIVEKIT_URL, LIVEKIT_API_KEY and LIVEKIT_API_SECRET, or started by the demo:
    `make livekit-server` installs it.

    With --voice you are the user: the demo prints the address of a page that joins the room with your microphone.
    An agent repeats what you say and falls silent when you speak; the page shows the avatar, captions and a
    timeline, and pauses, continues and interrupts the avatar. It needs a LiveKit server and the page that `make
    viewer` builds.

    \b
    Exit codes: 0 all checks passed, 1 a check or the call failed, 130 Ctrl-C.
    Afterwards, with your own account:
        LIVEAVATAR_API_KEY=... liveavatar-gateway serve
        liveavatar-gateway say hello.wav --sandbox
    """  # noqa: D301 - \b keeps click from wrapping
    if importlib.util.find_spec("liveavatar_demo") is None:
        fail("the demo is an extra: pip install 'liveavatar-gateway[demo]'")
    from rich.console import Console  # noqa: PLC0415 - keeps `--help` fast

    from liveavatar_demo import run  # noqa: PLC0415
    from liveavatar_demo.process import StartFailed  # noqa: PLC0415
    from liveavatar_demo.timeline import Timeline  # noqa: PLC0415

    if watch and as_json:
        raise click.UsageError("--json reports a single call, --watch repeats calls; choose one of them")
    timeline = Timeline(Console(highlight=False, quiet=as_json))
    _refuse_useless_options(context, voice=voice)
    if voice:
        _talk(timeline, port=port, ready_delay_ms=ready_delay_ms)
        return
    with stoppable():
        try:
            result = run.run(timeline, out=out, ready_delay_ms=ready_delay_ms, watch=watch)
        except (StartFailed, run.DemoFailed) as error:
            fail(str(error))
        except OSError as error:
            fail(f"{out} cannot be written: {error.strerror}")
    if as_json:
        report = {
            "ok": result.ok,
            "checks": [asdict(check) for check in result.checks],
            "timeline": [asdict(moment) for moment in timeline.moments],
            "viewer": result.viewer_url,
            "wav": str(result.wav_path),
            "wav_s": round(result.wav_s, 3),
            "seconds": round(result.seconds, 3),
        }
        print_json(report)
    else:
        timeline.verdict(result.checks)
        timeline.say(f"What the avatar said, {result.wav_s:.2f} s: {result.wav_path}")
        timeline.say(f"{result.seconds:.1f} s in total, {'all checks passed' if result.ok else 'CHECKS FAILED'}.")
    sys.exit(0 if result.ok else EX_FAILED)


def _refuse_useless_options(context: click.Context, *, voice: bool) -> None:
    """Refuse options that would have no effect."""
    useless = {"out": "--out", "watch": "--watch", "as_json": "--json"} if voice else {"port": "--port"}
    for name, option in useless.items():
        if context.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            raise click.UsageError(
                f"{option} has no effect {'with' if voice else 'without'} --voice; leave it out"
            )


def _talk(timeline: "Timeline", *, port: int, ready_delay_ms: int) -> None:
    from liveavatar_demo import voice  # noqa: PLC0415 - see above
    from liveavatar_demo.process import StartFailed  # noqa: PLC0415
    from liveavatar_demo.run import DemoFailed  # noqa: PLC0415

    with stoppable():
        try:
            voice.run(timeline, port=port, ready_delay_ms=ready_delay_ms)
        except (StartFailed, DemoFailed) as error:
            fail(str(error))
