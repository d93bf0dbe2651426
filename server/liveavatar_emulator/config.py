"""Every knob of the emulator, with its unit, range and default.

`ServerConfig` is fixed for the life of the process; `Settings` may be changed while it runs (`PATCH
/_emulator/settings`). A running session follows a change at once, except for knobs whose help says "for sessions
started afterwards".
"""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from liveavatar_emulator.account_limits import AccountLimits

Profile = Literal["modern", "classic", "acks_only"]


class Settings(BaseModel):
    """Behaviour of the emulated service. Immutable: a change makes a new object."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)

    profile: Profile = "modern"
    """Dialect of the socket, for sessions started afterwards. modern: all events, fresh ids. classic: speak_*
    only, ids echoed. acks_only: buffer acks and agent state, never a speak_* event."""
    success_code: Literal[1000, 100] = 1000
    """`code` in the envelope of a successful response: 1000 as the service sends it, 100 as documented."""

    ready_delay_ms: float = Field(default=2500, ge=0, le=60_000)
    """Time from the first socket to `connected`. Commands before it are dropped."""
    never_connected: bool = False
    """Become usable after ready_delay_ms without sending `connected`."""
    reconnect_emits_connected: bool = True
    """Send `connected` again to a socket that attaches to a ready session."""

    speed: float = Field(default=1.0, ge=0.01, le=1000)
    """Multiplier of playback alone: 48 000 bytes per second of emulator time, times this value. `--clock-speed`
    speeds up everything."""
    start_delay_ms: float = Field(default=200, ge=0, le=60_000)
    """Time from the first accepted chunk of an utterance to its first frame."""
    start_after_ms: float = Field(default=0, ge=0, le=600_000)
    """Audio that must be buffered before an utterance starts, unless speak_end arrives first."""
    interrupt_ack_ms: float = Field(default=190, ge=0, le=60_000)
    """Time from `agent.interrupt` to the cut and its ack. Audio plays on until then."""
    late_speak_ended_ms: float = Field(default=0, ge=0, le=60_000)
    """After an interrupt also send `agent.speak_ended` for the cut utterance, this much later. 0 disables it."""

    idle_s: float = Field(default=300, gt=0, le=86_400)
    """A session without commands or keep-alives for this long ends with IDLE_TIMEOUT."""
    reap_s: float = Field(default=200, gt=0, le=86_400)
    """A session without a socket for this long ends with ZOMBIE_SESSION_REAP."""
    max_duration_s: int = Field(default=3600, ge=1, le=86_400)
    """The plan's longest session: default and upper limit of max_session_duration. For sessions minted
    afterwards."""
    sandbox_s: int = Field(default=60, ge=1, le=86_400)
    """The same limit for sandbox sessions."""
    max_duration_mode: Literal["close", "mute"] = "close"
    """At the limit: close the socket, or leave it open, silent and without effect, and send no event."""
    token_ttl_s: float = Field(default=300, gt=0, le=86_400)
    """Lifetime of a session token; a later start is refused."""

    concurrency: int = Field(default=1, ge=0, le=100_000)
    """Active sessions per account; one more is refused with 403/4032."""
    slot_release_ms: float = Field(default=0, ge=0, le=60_000)
    """Time for which an ended session still occupies its slot."""
    credits: float = Field(default=1000, ge=0, le=1_000_000_000)
    """Balance of every account; a LITE session takes one credit per started minute. Setting it resets every
    balance."""
    overage: bool = False
    """Let sessions start and continue with an empty balance, instead of 403/4033 and NO_CREDITS."""
    own_avatars: int = Field(default=0, ge=0, le=1000)
    """Custom avatars of every account. The second is still deploying and the third has expired."""
    rate: int = Field(default=10, ge=0, le=1_000_000)
    """Requests per second, caller and endpoint; one more is a 429. 0 switches the limit off."""
    allow_1080p: bool = False
    """Accept video quality very_high instead of refusing it with 403/4030."""
    byo_livekit_fields: Literal["filled", "null", "omitted"] = "filled"
    """The livekit_* fields of start's response if the caller brought its own room."""

    avatar_video: bool = True
    """Show avatars in rooms. Off, they only speak, at a small part of the CPU. For sessions started afterwards."""

    frame_limit_chars: int = Field(default=1_000_000, ge=1_000, le=12_000_000)
    """Longest text frame that the socket accepts."""
    oversize: Literal["close", "drop"] = "close"
    """Effect of a longer frame: closes the socket with 1009, or drops the frame."""
    max_queued_s: float = Field(default=0, ge=0, le=86_400)
    """Unplayed audio that a session accepts; more is refused with an `error`. 0 accepts any amount."""
    strict: bool = False
    """Refuse input that the service tolerates: the `start` frame and dry buffers cause an `error`, a keep-alive
    body of `{}` and a connector's unknown secret are a 400."""
    idle_on_underrun: bool = False
    """Report talking to idle when the buffer runs dry inside an utterance, and back when audio follows."""
    idle_events: bool = False
    """Also send `agent.idle_started` and `agent.idle_ended`, as older builds do."""
    warn_wrong_pose: bool = False
    """Answer start_listening and stop_listening in the wrong pose with a `warning` instead of silence."""
    session_stopped_event: bool = True
    """Announce the end of a session with `session.stopped` (never in the classic profile)."""

    jitter_ms: float = Field(default=0, ge=0, le=60_000)
    """Fault: delay each event by a random time up to this value, in order."""
    shuffle_events: bool = False
    """Fault: send events of the same moment in a random order."""
    drop_after_packets: int = Field(default=0, ge=0, le=1_000_000_000)
    """Fault: close the socket with drop_code right after a session's n-th packet. 0 disables it."""
    drop_code: int = Field(default=1011, ge=1000, le=4999)
    """Close code of drop_after_packets."""

    keep_audio_mb: float = Field(default=64, ge=0, le=100_000)
    """Received audio kept per session for download. Digests and sizes are always kept."""
    keep_audio_total_mb: float = Field(default=1024, ge=0, le=100_000)
    """Received audio kept for all sessions together."""
    keep_sessions: int = Field(default=1000, ge=1, le=1_000_000)
    """Recordings of ended sessions kept; the oldest are deleted."""


class UnknownSetting(ValueError):
    """Unknown name of a knob; `suggestion` is the closest known name, if any is close."""

    def __init__(self, name: str) -> None:
        close = difflib.get_close_matches(name, Settings.model_fields, n=1)
        self.name = name
        self.suggestion = close[0] if close else None
        hint = f"; did you mean {self.suggestion!r}?" if self.suggestion else ""
        super().__init__(f"unknown setting {name!r}{hint}")


class InvalidSetting(ValueError):
    """Value outside the range of the knob `name`."""

    def __init__(self, name: str, problem: str) -> None:
        self.name = name
        super().__init__(f"setting {name!r}: {problem}")


def changed(settings: Settings, changes: dict[str, Any]) -> Settings:
    """Return the settings with `changes` applied and checked.

    Raises:
        UnknownSetting: a key is no knob.
        InvalidSetting: a value has the wrong type or is out of range.
    """
    for name in changes:
        if name not in Settings.model_fields:
            raise UnknownSetting(name)
    try:
        return Settings.model_validate({**settings.model_dump(), **changes})
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise InvalidSetting(str(first["loc"][0]), str(first["msg"])) from error


ROOMS_IN_REAL_TIME = "in LiveKit rooms speech is heard in real time: leave it at 1, or run without --livekit-url"


def check_room_clock(settings: Settings) -> None:
    """Refuse a playback speed that rooms cannot follow: audio in a room has only one speed.

    Raises:
        InvalidSetting: `speed` is not 1.
    """
    if settings.speed != 1:
        raise InvalidSetting("speed", ROOMS_IN_REAL_TIME)


class InvalidLiveKit(ValueError):
    """Contradictory or malformed LiveKit options; the message names the option."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveKitServer:
    """Address of a LiveKit server, with a key that may create rooms and sign tokens there."""

    url: str
    """`ws://` or `wss://`, the address at which clients join."""
    api_key: str
    api_secret: str = field(repr=False)


def livekit_server(url: str | None, api_key: str | None, api_secret: str | None) -> LiveKitServer | None:
    """Return the LiveKit server of these three options; None if none of them is given.

    `http` and `https` addresses stand for the same server's `ws` and `wss`.

    Raises:
        InvalidLiveKit: only some options are given, or the address is malformed.
    """
    given = {"--livekit-url": url, "--livekit-key": api_key, "--livekit-secret": api_secret}
    missing = [option for option, value in given.items() if not value]
    if len(missing) == len(given):
        return None
    if url and api_key and api_secret:
        return LiveKitServer(url=_room_url(url), api_key=api_key, api_secret=api_secret)
    names = " and ".join(f"{option} (or {_livekit_variable(option)})" for option in missing)
    raise InvalidLiveKit(
        f"a LiveKit server needs address, key and secret: {names} missing; give all three or none"
    )


def _livekit_variable(option: str) -> str:
    return "EMULATOR_" + option.removeprefix("--").replace("-", "_").upper()


def _room_url(url: str) -> str:
    try:
        parts = urlsplit(url)
        scheme = {"http": "ws", "https": "wss"}.get(parts.scheme, parts.scheme)
        sound = scheme in ("ws", "wss") and bool(parts.hostname) and "@" not in parts.netloc
    except ValueError:
        sound = False
    if not sound:
        raise InvalidLiveKit(
            "--livekit-url must be an address like ws://127.0.0.1:7880 or wss://livekit.example.com"
        )
    return parts._replace(scheme=scheme).geturl().rstrip("/")


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerConfig:
    """Options of the process, fixed at start."""

    host: str = "127.0.0.1"
    """Address to listen on. The emulator has no TLS: keep it on a private network."""
    port: int = 8787
    """TCP port; 0 picks a free one."""
    api_keys: tuple[str, ...] = ("emulator-key",)
    """Accepted API keys, each `KEY` (an account of its own) or `ACCOUNT=KEY` (keys that share one)."""
    account_limits: Mapping[str, AccountLimits] = field(default_factory=dict)
    """Limits of accounts, by name, that differ from the knobs."""
    public_url: str | None = None
    """Base of the `ws_url` in responses, e.g. `ws://emulator:8787`; by default the host of the request."""
    ready_file: Path | None = None
    """File written once connections are accepted."""
    log_level: str = "info"
    """debug, info, warning or error."""
    clock: Literal["real", "manual"] = "real"
    """manual: time stands still and moves only by `POST /_emulator/clock/advance`."""
    clock_speed: float = 1.0
    """Emulator seconds per real second, 0.01 to 1000, for everything that takes time."""
    seed: int = 0
    """Seed of session ids, jitter, shuffles and choices among sessions."""
    event_log: Path | None = None
    """File for all events, a JSON line each; truncated at start."""
    control_token: str | None = field(default=None, repr=False)
    """Token that callers of the control API send; without one, the API is closed unless `host` is loopback."""
    allowed_hosts: tuple[str, ...] = ()
    """Further names of this emulator in the header `Host` of requests outside `/v1`."""
    livekit: LiveKitServer | None = None
    """With a server, each session has a real room that the avatar joins; without, room tokens lead nowhere."""

    def __post_init__(self) -> None:
        """Refuse options that contradict each other or are out of range.

        Raises:
            InvalidSetting: an option is out of range, or two contradict each other.
        """
        if not 0.01 <= self.clock_speed <= 1000:
            raise InvalidSetting("clock_speed", f"must be from 0.01 to 1000, not {self.clock_speed:g}")
        if self.clock == "manual" and self.clock_speed != 1:
            raise InvalidSetting("clock_speed", "a manual clock has no speed; leave one of the two out")
        if self.livekit is not None and self.clock != "real":
            raise InvalidSetting("clock", "rooms need a clock that moves: leave out --clock or --livekit-url")
        if self.livekit is not None and self.clock_speed != 1:
            raise InvalidSetting("clock_speed", ROOMS_IN_REAL_TIME)
