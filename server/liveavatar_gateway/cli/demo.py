"""`liveavatar-gateway demo`: a whole call without an account, and its proof."""

import importlib.util
import json
import sys
from dataclasses import asdict
from pathlib import Path

import click

from liveavatar_gateway.cli.output import EX_FAILED, fail, stoppable


@click.command()
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    default=Path("build/demo/avatar.wav"),
    show_default=True,
    help="WAV file for what the avatar said.",
)
@click.option(
    "--ready-delay-ms",
    type=click.IntRange(0, 10_000),
    default=2500,
    show_default=True,
    help="How long the emulated avatar takes to get ready. LiveAvatar's takes about the default.",
)
@click.option(
    "--watch", is_flag=True, help="Hold the call again and again until Ctrl-C, so there is time to look."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON report at the end instead of the timeline.")
def demo(out: Path, ready_delay_ms: int, *, watch: bool, as_json: bool) -> None:
    """Hold a whole call: no account, no key, nothing to start first. Takes about 20 seconds.

    Starts an emulator of LiveAvatar and a gateway in front of it, as real processes on free ports. Then it does
    what an agent does: opens a session, speaks before the avatar is ready, speaks again and is interrupted, and
    ends the session. Both recordings are at 22050 Hz, so the gateway resamples them.

    The emulator has recorded what reached it. The demo compares that with the recordings, sample for sample, and
    checks that nothing was sent too early, too late or twice. What was heard goes to a WAV file: listen to it.

    With a LiveKit server the avatar also has a face, in a real room, and the address of a page to watch it on is
    printed at the start. The server is the one of LIVEKIT_URL, LIVEKIT_API_KEY and LIVEKIT_API_SECRET, or one that
    the demo starts: `make livekit-server` installs it.

    \b
    Exit codes: 0 every check holds, 1 one does not or the call failed, 130 Ctrl-C.
    Afterwards, with your own account:
        LIVEAVATAR_API_KEY=... liveavatar-gateway serve
        liveavatar-gateway say hello.wav --sandbox
    """  # noqa: D301 - \b is how click is told not to wrap
    if importlib.util.find_spec("liveavatar_demo") is None:
        fail("the demo is an extra: pip install 'liveavatar-gateway[demo]'")
    from rich.console import Console  # noqa: PLC0415 - `--help` should not wait for these

    from liveavatar_demo import run  # noqa: PLC0415
    from liveavatar_demo.process import StartFailed  # noqa: PLC0415
    from liveavatar_demo.timeline import Timeline  # noqa: PLC0415

    if watch and as_json:
        raise click.UsageError("--json reports one call, --watch holds many; choose one of them")
    timeline = Timeline(Console(highlight=False, quiet=as_json))
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
        click.echo(json.dumps(report, indent=2, ensure_ascii=False))
    else:
        timeline.verdict(result.checks)
        timeline.say(f"What the avatar said, {result.wav_s:.2f} s: {result.wav_path}")
        timeline.say(f"{result.seconds:.1f} s in all, {'every check holds' if result.ok else 'CHECKS FAILED'}.")
    sys.exit(0 if result.ok else EX_FAILED)
