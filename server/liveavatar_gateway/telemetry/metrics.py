"""The gateway's metrics: each has its unit in its name, few labels, and none a caller or LiveAvatar can invent.

Nothing is counted per chunk: there are fifty of those per second of speech. Per packet it is two additions; all
else happens once per utterance, session or call. No histogram has the lifetime of a stream in it, which says
nothing of speed.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, ProcessCollector

from liveavatar_gateway import __version__
from liveavatar_gateway.core.errors import GatewayError, ReadyTimeout, UpstreamStalled
from liveavatar_gateway.core.events import (
    Adopted,
    Ended,
    Reconnected,
    Rotated,
    SessionEvent,
    StateChanged,
    UtteranceEnded,
    UtteranceStarted,
    UtteranceUnderrun,
)
from liveavatar_gateway.core.states import EndReason, Outcome, SessionState
from liveavatar_gateway.telemetry.guard import never_raises

_LIVING: Final = tuple(state for state in SessionState if state is not SessionState.ENDED)
_OPEN_BUCKETS_S: Final = (0.1, 0.25, 0.5, 1, 2, 3, 4, 5, 7.5, 10, 15, 20, 30, 60)
_SPEECH_BUCKETS_S: Final = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 1.5, 2, 3, 5, 10)
_LAG_BUCKETS_S: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1)
SOCKET_CLOSED: Final = "SOCKET_CLOSED"
"""Upstream error without a reason in the contract: the command socket went while its session was to go on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """What is counted when somebody looks, not when it changes."""

    sessions: Mapping[SessionState, int]
    """Sessions that have not ended."""
    used_permits: int
    permits: int
    waiting: int
    """Callers waiting for a permit."""
    stops_pending: int
    """Stops that LiveAvatar has not confirmed."""
    draining: bool
    tasks: int
    """Tasks of the event loop."""
    dropped_log_lines: int = 0
    """Log lines that could not be written since the process started."""


class Metrics:
    """All metrics of one gateway, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        own = self.registry
        Info("gateway_build", "Version of the gateway.", registry=own).info({"version": __version__})
        self._sessions = Gauge(
            "gateway_sessions", "Sessions that have not ended, by state.", ["state"], registry=own
        )
        self._sessions_ended = Counter(
            "gateway_sessions_ended", "Sessions that ended, by reason.", ["reason"], registry=own
        )
        self._permits_used = Gauge("gateway_permits_used", "Permits of the account in use.", registry=own)
        self._permits_limit = Gauge("gateway_permits_limit", "Permits of the account.", registry=own)
        self._waiting = Gauge("gateway_permits_waiting", "Callers waiting for a permit.", registry=own)
        self._stops_pending = Gauge(
            "gateway_upstream_stops_pending",
            "Stops that LiveAvatar has not confirmed: these sessions may still be billed.",
            registry=own,
        )
        self._draining = Gauge("gateway_draining", "1 while the gateway drains.", registry=own)
        self._tasks = Gauge(
            "gateway_asyncio_tasks",
            "Tasks of the event loop: a few for each session and stream, and none that outlives them.",
            registry=own,
        )
        self._session_open = Histogram(
            "gateway_session_open_seconds",
            "From the call that creates a session to an avatar that can speak, the wait for a place included.",
            buckets=_OPEN_BUCKETS_S,
            registry=own,
        )
        self._utterances = Counter(
            "gateway_utterances", "Utterances that ended, by outcome.", ["outcome"], registry=own
        )
        self._utterance_start = Histogram(
            "gateway_utterance_start_seconds",
            "From the begin of an utterance to its first sound.",
            buckets=_SPEECH_BUCKETS_S,
            registry=own,
        )
        self._interrupts = Histogram(
            "gateway_interrupt_seconds",
            "From an interrupt to its answer: LiveAvatar has fallen silent, or did not say so in time.",
            buckets=_SPEECH_BUCKETS_S,
            registry=own,
        )
        self._packets = Counter("gateway_upstream_packets", "Packets of audio sent to LiveAvatar.", registry=own)
        self._audio_bytes = Counter(
            "gateway_upstream_audio_bytes",
            "Audio sent to LiveAvatar, bytes of 24 kHz mono s16le: 48 000 are a second.",
            registry=own,
        )
        self._stale_audio_bytes = Counter(
            "gateway_stale_audio_bytes",
            "Audio that came for an utterance which was cut, refused or over, and was dropped; bytes as sent.",
            registry=own,
        )
        self._underruns = Counter(
            "gateway_underruns",
            "Times an avatar ran dry inside an utterance whose audio had not all come.",
            registry=own,
        )
        self._upstream_errors = Counter(
            "gateway_upstream_errors",
            "Refusals and failures of LiveAvatar, those that a retry made good among them, by reason.",
            ["reason"],
            registry=own,
        )
        self._reconnects = Histogram(
            "gateway_upstream_reconnect_seconds",
            "From a lost command socket to one that is ready again.",
            buckets=_OPEN_BUCKETS_S,
            registry=own,
        )
        self._resent_bytes = Counter(
            "gateway_upstream_resent_bytes",
            "Audio that was sent again behind a lost command socket, bytes as in gateway_upstream_audio_bytes.",
            registry=own,
        )
        self._rotations = Counter(
            "gateway_rotations",
            "Fresh avatars that took over before a limit: at a border between utterances, inside one, or failed "
            "when the limit came first.",
            ["outcome"],
            registry=own,
        )
        self._taken_over = Counter(
            "gateway_sessions_taken_over",
            "Sessions of dead processes that this one went on with (adopted) or ended (swept).",
            ["outcome"],
            registry=own,
        )
        self._registry_available = Gauge(
            "gateway_registry_available", "0 while the registry cannot be written: no new sessions.", registry=own
        )
        self._registry_available.set(1)
        self._rpcs = Counter(
            "gateway_rpcs", "Calls that ended, by method and code.", ["method", "code"], registry=own
        )
        self._malformed_messages = Counter(
            "gateway_malformed_messages",
            "Messages of callers that are none of the contract, by method. They are refused and not logged.",
            ["method"],
            registry=own,
        )
        self._rpcs_open = Gauge("gateway_rpcs_open", "Calls and streams that are open.", ["method"], registry=own)
        self._dropped_log_lines = Counter(
            "gateway_log_lines_dropped",
            "Log lines that could not be written, or that nobody read in time.",
            registry=own,
        )
        self._dropped_before = 0
        self._lag = Histogram(
            "gateway_event_loop_lag_seconds",
            "How late the event loop wakes: work is waiting for the core this long.",
            buckets=_LAG_BUCKETS_S,
            registry=own,
        )
        # A series that appears only with its first event hides that event from rate() and increase().
        for state in _LIVING:
            self._sessions.labels(state.value)
        for reason in EndReason:
            self._sessions_ended.labels(reason.value)
        for rotation in ("border", "inside", "failed"):
            self._rotations.labels(rotation)
        for taken in ("adopted", "swept"):
            self._taken_over.labels(taken)
        for outcome in Outcome:
            self._utterances.labels(outcome.value)

    @never_raises
    def look(self, now: Snapshot) -> None:
        """Take over what is counted only when somebody looks."""
        for state in _LIVING:
            self._sessions.labels(state.value).set(now.sessions.get(state, 0))
        self._permits_used.set(now.used_permits)
        self._permits_limit.set(now.permits)
        self._waiting.set(now.waiting)
        self._stops_pending.set(now.stops_pending)
        self._draining.set(now.draining)
        self._tasks.set(now.tasks)
        self._dropped_log_lines.inc(now.dropped_log_lines - self._dropped_before)
        self._dropped_before = now.dropped_log_lines

    @never_raises
    def packet(self, size_bytes: int) -> None:
        """A packet went upstream."""
        self._packets.inc()
        self._audio_bytes.inc(size_bytes)

    @never_raises
    def stale_audio(self, size_bytes: int) -> None:
        """Count audio that was dropped since its utterance takes none any more."""
        self._stale_audio_bytes.inc(size_bytes)

    @never_raises
    def interrupted(self, seconds: float) -> None:
        """An interrupt was answered."""
        self._interrupts.observe(seconds)

    @never_raises
    def upstream_failed(self, reason: str) -> None:
        """LiveAvatar refused or failed; `reason` is one of the contract's, or `SOCKET_CLOSED`."""
        self._upstream_errors.labels(reason).inc()

    @never_raises
    def taken_over(self, *, adopted: bool) -> None:
        """A session of a dead process goes on here, or was ended."""
        self._taken_over.labels("adopted" if adopted else "swept").inc()

    @never_raises
    def registry_works(self, *, works: bool) -> None:
        """The registry can be written, or cannot."""
        self._registry_available.set(works)

    @never_raises
    def rpc_began(self, method: str) -> None:
        """A call was taken."""
        self._rpcs_open.labels(method).inc()

    @never_raises
    def rpc_ended(self, method: str, code: str) -> None:
        """A call ended."""
        self._rpcs_open.labels(method).dec()
        self._rpcs.labels(method, code).inc()

    @never_raises
    def malformed_message(self, method: str) -> None:
        """Count bytes of a caller that are no message of this method."""
        self._malformed_messages.labels(method).inc()

    @never_raises
    def loop_lagged(self, seconds: float) -> None:
        """The event loop woke so late."""
        self._lag.observe(seconds)

    def session(self, clock: Callable[[], float] = time.monotonic) -> "SessionMeter":
        """Meter of a session that begins now."""
        return SessionMeter(self, clock)

    # --- for SessionMeter

    @never_raises
    def session_opened(self, seconds: float) -> None:
        """A session can speak."""
        self._session_open.observe(seconds)

    @never_raises
    def reconnected(self, gap_s: float, resent_bytes: int) -> None:
        """A lost command socket is there again."""
        self._reconnects.observe(gap_s)
        self._resent_bytes.inc(resent_bytes)

    @never_raises
    def rotated(self, outcome: str) -> None:
        """A fresh avatar took over, or could not in time."""
        self._rotations.labels(outcome).inc()

    @never_raises
    def session_ended(self, reason: EndReason | None) -> None:
        """A session is over."""
        self._sessions_ended.labels(reason.value if reason else EndReason.UPSTREAM_FAILED.value).inc()

    @never_raises
    def utterance_started(self, seconds: float) -> None:
        """The first sound of an utterance is out."""
        self._utterance_start.observe(seconds)

    @never_raises
    def underrun(self) -> None:
        """Count an avatar that ran dry inside an utterance."""
        self._underruns.inc()

    @never_raises
    def utterance_ended(self, outcome: Outcome) -> None:
        """An utterance is over."""
        self._utterances.labels(outcome.value).inc()


class SessionMeter:
    """Turns what happens in one session into metrics. Holds a time for each utterance that has not started."""

    def __init__(self, metrics: Metrics, clock: Callable[[], float]) -> None:
        self._metrics = metrics
        self._clock = clock
        self._created_s = clock()
        self._opened = False
        self._begun_s: dict[str, float] = {}

    @never_raises
    def begun(self, utterance_id: str) -> None:
        """An utterance was begun."""
        self._begun_s[utterance_id] = self._clock()

    @never_raises
    def happened(self, happening: SessionEvent, end_reason: EndReason | None) -> None:
        """Something was put into the session's log; `end_reason` is the session's, None while it lives."""
        match happening:
            case Adopted():
                # It was opened by a process that is gone.
                self._opened = True
            case Reconnected(gap_s=gap_s, resent_bytes=resent_bytes):
                self._metrics.reconnected(gap_s, resent_bytes)
            case Rotated(inside=inside):
                self._metrics.rotated("inside" if inside else "border")
            case StateChanged(state=SessionState.READY) if not self._opened:
                self._opened = True
                self._metrics.session_opened(self._clock() - self._created_s)
            case UtteranceStarted(utterance_id=utterance_id):
                if (begun_s := self._begun_s.pop(utterance_id, None)) is not None:
                    self._metrics.utterance_started(self._clock() - begun_s)
            case UtteranceUnderrun():
                self._metrics.underrun()
            case UtteranceEnded(utterance_id=utterance_id, outcome=outcome, error=error):
                self._begun_s.pop(utterance_id, None)
                self._metrics.utterance_ended(outcome)
                self._concluded(error)
            case Ended(error=error):
                self._metrics.session_ended(end_reason)
                self._concluded(error)

    def _concluded(self, error: GatewayError | None) -> None:
        """Count what LiveAvatar's silence was taken for; errors that it told were counted where they came in."""
        if isinstance(error, ReadyTimeout | UpstreamStalled):
            self._metrics.upstream_failed(error.reason)
