"""Metrics of the gateway: units in names, few labels, and no label value chosen by callers or LiveAvatar.

Nothing is counted per chunk, of which a session has fifty per second of speech. A packet costs two additions; all
other metrics change once per utterance, session or call. No histogram includes the lifetime of a stream, which
would hide latencies.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
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
    SpeechContinued,
    SpeechPaused,
    StateChanged,
    UtteranceEnded,
    UtteranceStarted,
    UtteranceUnderrun,
)
from liveavatar_gateway.core.states import ContinueCause, EndReason, Outcome, SessionState
from liveavatar_gateway.pool.overview import PoolStatus
from liveavatar_gateway.telemetry.guard import never_raises
from liveavatar_gateway.telemetry.pool_metrics import CREDITS_PER_MINUTE, PoolMetrics

_LIVING: Final = tuple(state for state in SessionState if state is not SessionState.ENDED)
_OPEN_BUCKETS_S: Final = (0.1, 0.25, 0.5, 1, 2, 3, 4, 5, 7.5, 10, 15, 20, 30, 60)
_SPEECH_BUCKETS_S: Final = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 1.5, 2, 3, 5, 10)
_LAG_BUCKETS_S: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1)
_MAX_TENANTS: Final = 1000
SOCKET_CLOSED: Final = "SOCKET_CLOSED"
"""Upstream error without a reason in the contract: a command socket was lost during its session."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WarmCounts:
    """Warm sessions of one profile."""

    starting: int
    ready: int
    credits_used: float
    """Credits of the last hour, for the time in which nobody had taken a session."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """Values that are read at each scrape instead of being recorded at each change."""

    sessions: Mapping[SessionState, int]
    """Number of sessions that have not ended, by state."""
    tenants: Mapping[str, int]
    """Number of sessions that have not ended, by tenant; without those of anonymous callers."""
    used_permits: int
    permits: int
    waiting: int
    """Number of callers waiting for a permit."""
    stops_pending: int
    """Number of stops that LiveAvatar has not confirmed."""
    draining: bool
    tasks: int
    """Number of tasks of the event loop."""
    warm: Mapping[str, WarmCounts] = field(default_factory=dict)
    """Warm sessions by profile."""
    reservations: int = 0
    """Number of prepared avatars that wait for their caller."""
    dropped_log_lines: int = 0
    """Number of log lines dropped since the process started."""
    dropped_audit_lines: int = 0
    """Number of audit lines dropped since the process started."""
    pool: PoolStatus | None = None
    """Accounts, tenants and permits of all processes on the registry."""


class Metrics:
    """All metrics of one gateway, in their own Prometheus registry."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        own = self.registry
        self.pool = PoolMetrics(own)
        Info("gateway_build", "Version of the gateway.", registry=own).info({"version": __version__})
        self._exceptions = Gauge(
            "gateway_protection_off",
            "1 for each protection that settings have switched off: anonymous, plaintext.",
            ["protection"],
            registry=own,
        )
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
            "Stops that LiveAvatar has not confirmed; these sessions may still be billed.",
            registry=own,
        )
        self._draining = Gauge("gateway_draining", "1 while the gateway drains.", registry=own)
        self._tasks = Gauge(
            "gateway_asyncio_tasks",
            "Tasks of the event loop: a few for each session and stream.",
            registry=own,
        )
        self._session_open = Histogram(
            "gateway_session_open_seconds",
            "Time from the call that creates a session to a ready avatar, including the wait for a permit.",
            buckets=_OPEN_BUCKETS_S,
            registry=own,
        )
        self._utterances = Counter(
            "gateway_utterances", "Utterances that ended, by outcome.", ["outcome"], registry=own
        )
        self._utterance_start = Histogram(
            "gateway_utterance_start_seconds",
            "Time from the begin of an utterance to its first sound.",
            buckets=_SPEECH_BUCKETS_S,
            registry=own,
        )
        self._interrupts = Histogram(
            "gateway_interrupt_seconds",
            "Time from an interrupt to its answer: LiveAvatar is silent, or did not confirm in time.",
            buckets=_SPEECH_BUCKETS_S,
            registry=own,
        )
        self._packets = Counter("gateway_upstream_packets", "Audio packets sent to LiveAvatar.", registry=own)
        self._keep_alives = Counter(
            "gateway_upstream_keep_alives",
            "Keep-alives, by way (socket, rest) and outcome (sent, failed, postponed).",
            ["way", "outcome"],
            registry=own,
        )
        self._room_looks = Counter(
            "gateway_room_looks",
            "Looks into rooms for viewers, by outcome (viewers, nobody, failed).",
            ["outcome"],
            registry=own,
        )
        self._audio_bytes = Counter(
            "gateway_upstream_audio_bytes",
            "Audio sent to LiveAvatar, in bytes of 24 kHz mono s16le (48 000 per second).",
            registry=own,
        )
        self._stale_audio_bytes = Counter(
            "gateway_stale_audio_bytes",
            "Dropped audio of utterances that were already interrupted, refused or ended; bytes as received.",
            registry=own,
        )
        self._underruns = Counter(
            "gateway_underruns",
            "Underruns inside an utterance whose audio was not complete.",
            registry=own,
        )
        self._upstream_errors = Counter(
            "gateway_upstream_errors",
            "Refusals and failures of LiveAvatar, including those followed by a successful retry, by reason.",
            ["reason"],
            registry=own,
        )
        self._reconnects = Histogram(
            "gateway_upstream_reconnect_seconds",
            "Time from a lost command socket to the next ready one.",
            buckets=_OPEN_BUCKETS_S,
            registry=own,
        )
        self._resent_bytes = Counter(
            "gateway_upstream_resent_bytes",
            "Audio sent again after a lost command socket, in bytes as in gateway_upstream_audio_bytes.",
            registry=own,
        )
        self._rotations = Counter(
            "gateway_rotations",
            "Rotations to a standby avatar before the limit: at a border between utterances, inside an utterance, "
            "or failed because the limit came first.",
            ["outcome"],
            registry=own,
        )
        self._taken_over = Counter(
            "gateway_sessions_taken_over",
            "Sessions of dead processes that this process continued (adopted) or ended (swept).",
            ["outcome"],
            registry=own,
        )
        self._registry_available = Gauge(
            "gateway_registry_available",
            "0 while the registry cannot be written and new sessions are refused.",
            registry=own,
        )
        self._registry_available.set(1)
        self._tenants: set[str] = set()
        self._add_pauses()
        self._add_quotas()
        self._add_calls()
        self._add_billing()
        self._add_warm()
        self._add_listening()
        self._dropped_log_lines = Counter(
            "gateway_log_lines_dropped",
            "Log lines that could not be written, or were not read in time.",
            registry=own,
        )
        self._dropped_before = 0
        self._dropped_audit_lines = Counter(
            "gateway_audit_lines_dropped",
            "Lines of the audit log that could not be written.",
            registry=own,
        )
        self._dropped_audit_before = 0
        self._lag = Histogram(
            "gateway_event_loop_lag_seconds",
            "Delay with which the event loop wakes up: time for which work waits for the CPU.",
            buckets=_LAG_BUCKETS_S,
            registry=own,
        )
        # rate() and increase() miss the first event of a series that did not exist before.
        for state in _LIVING:
            self._sessions.labels(state.value)
        for reason in EndReason:
            self._sessions_ended.labels(reason.value)
        for rotation in ("border", "inside", "failed"):
            self._rotations.labels(rotation)
        for way, result in (("socket", "sent"), ("rest", "sent"), ("rest", "failed"), ("rest", "postponed")):
            self._keep_alives.labels(way, result)
        for look in ("viewers", "nobody", "failed"):
            self._room_looks.labels(look)
        for taken in ("adopted", "swept"):
            self._taken_over.labels(taken)
        for outcome in Outcome:
            self._utterances.labels(outcome.value)

    def _add_pauses(self) -> None:
        self._pauses = Counter(
            "gateway_pauses",
            "Begins (begin) and ends (command, timeout, interrupt) of pauses of speech.",
            ["change"],
            registry=self.registry,
        )
        for change in ("begin", *(cause.value for cause in ContinueCause)):
            self._pauses.labels(change)

    def _add_quotas(self) -> None:
        own = self.registry
        self._quota_refusals = Counter(
            "gateway_quota_refusals",
            "Calls and sessions that were refused because a tenant is at a quota, by tenant and quota.",
            ["tenant", "quota"],
            registry=own,
        )
        self._tenant_sessions = Gauge(
            "gateway_tenant_sessions",
            "Sessions that have not ended, by tenant.",
            ["tenant"],
            registry=own,
        )

    def _add_billing(self) -> None:
        own = self.registry
        self._billed_minutes = Counter(
            "gateway_billed_minutes",
            "Billed minutes that began, by tenant; the first 1000 tenants, and `other`.",
            ["tenant"],
            registry=own,
        )
        self._billed_seconds = Counter(
            "gateway_billed_seconds",
            "Seconds of the billed minutes that began, by tenant, as in gateway_billed_minutes.",
            ["tenant"],
            registry=own,
        )
        self._estimated_credits = Counter(
            "gateway_estimated_credits",
            "Credits that the billed minutes cost at LiveAvatar's price for LITE mode, 1 a minute, by tenant.",
            ["tenant"],
            registry=own,
        )
        self._budget_warnings = Counter(
            "gateway_budget_warnings",
            "Budgets of which 80 % were spent, by tenant; one for each hour, day or month.",
            ["tenant"],
            registry=own,
        )
        self._budget_refusals = Counter(
            "gateway_budget_refusals",
            "Sessions that were refused because a budget was spent, by tenant.",
            ["tenant"],
            registry=own,
        )

    def _add_listening(self) -> None:
        own = self.registry
        self._listeners = Gauge("gateway_listeners", "Streams that hear the users of a session.", registry=own)
        self._rooms_joined = Gauge(
            "gateway_rooms_joined",
            "Rooms that the gateway has joined for listeners, events or data.",
            registry=own,
        )
        self._room_joins = Counter(
            "gateway_room_joins",
            "Attempts to join a room for listeners, events or data, by outcome (joined, failed, refused).",
            ["outcome"],
            registry=own,
        )
        self._user_audio = Counter(
            "gateway_user_audio_seconds",
            "Audio of users for listeners, by outcome (sent, dropped for lack of credit).",
            ["outcome"],
            registry=own,
        )
        self._room_data = Counter(
            "gateway_room_data_messages",
            "Data messages of participants (received, dropped) and for participants (sent, refused).",
            ["outcome"],
            registry=own,
        )
        for message in ("received", "dropped", "sent", "refused"):
            self._room_data.labels(message)
        for join in ("joined", "failed", "refused"):
            self._room_joins.labels(join)
        for fate in ("sent", "dropped"):
            self._user_audio.labels(fate)

    def _add_calls(self) -> None:
        own = self.registry
        self._rpcs = Counter(
            "gateway_rpcs", "Completed calls, by method and code.", ["method", "code"], registry=own
        )
        self._malformed_messages = Counter(
            "gateway_malformed_messages",
            "Messages that are not valid in the contract, by method. They are refused and not logged.",
            ["method"],
            registry=own,
        )
        self._calls_refused = Counter(
            "gateway_calls_refused",
            "Calls that were refused because the process has too many at once, by limit.",
            ["reason"],
            registry=own,
        )
        self._answers_unread = Counter(
            "gateway_answers_unread",
            "Calls that ended because an answer was not read within GATEWAY_WRITE_TIMEOUT_S.",
            registry=own,
        )
        self._connections_closed = Counter(
            "gateway_connections_closed",
            "Connections that were closed because their callers left too much unread.",
            registry=own,
        )
        self._rpcs_open = Gauge("gateway_rpcs_open", "Open calls and streams.", ["method"], registry=own)
        for scope in ("calls", "watches", "health_calls", "waiting_lists"):
            self._calls_refused.labels(scope)

    def _add_warm(self) -> None:
        own = self.registry
        self._warm = Gauge(
            "gateway_warm_sessions",
            "Sessions that are warm, by profile and state: starting, ready.",
            ["profile", "state"],
            registry=own,
        )
        self._warm_credits = Gauge(
            "gateway_warm_credits_last_hour",
            "Credits of the last hour for the time in which nobody had taken a warm session, by profile.",
            ["profile"],
            registry=own,
        )
        self._warm_taken = Counter(
            "gateway_warm_taken", "Warm sessions that a caller took, by profile.", ["profile"], registry=own
        )
        self._warm_missed = Counter(
            "gateway_warm_missed",
            "Callers of a profile that found no warm session that lives long enough.",
            ["profile"],
            registry=own,
        )
        self._warm_retired = Counter(
            "gateway_warm_retired",
            "Warm sessions that ended without a caller, by profile and reason.",
            ["profile", "reason"],
            registry=own,
        )
        self._reservations_waiting = Gauge(
            "gateway_reservations_waiting", "Prepared avatars that wait for their caller.", registry=own
        )
        self._reservations = Counter(
            "gateway_reservations",
            "Reservations, by outcome: made, taken, unused, lost, or the reason for which they ended early.",
            ["outcome"],
            registry=own,
        )
        for outcome in ("made", "taken", "unused", "lost"):
            self._reservations.labels(outcome)

    @never_raises
    def warm_profile(self, profile: str) -> None:
        """Begin the series of a profile with 0."""
        self._warm_taken.labels(profile)
        self._warm_missed.labels(profile)
        self._warm_retired.labels(profile, "idle")

    @never_raises
    def warm_taken(self, profile: str) -> None:
        """Record a warm session that a caller took."""
        self._warm_taken.labels(profile).inc()

    @never_raises
    def warm_missed(self, profile: str) -> None:
        """Record a caller that found no warm session."""
        self._warm_missed.labels(profile).inc()

    @never_raises
    def warm_retired(self, profile: str, reason: str) -> None:
        """Record a warm session that ended without a caller."""
        self._warm_retired.labels(profile, reason).inc()

    @never_raises
    def reservation(self, outcome: str) -> None:
        """Record that a reservation was made or ended."""
        self._reservations.labels(outcome).inc()

    @never_raises
    def update(self, now: Snapshot) -> None:
        """Set the values that are read at each scrape."""
        for state in _LIVING:
            self._sessions.labels(state.value).set(now.sessions.get(state, 0))
        self._tenant_sessions.clear()
        for tenant, count in now.tenants.items():
            self._tenant_sessions.labels(self._tenant_label(tenant)).inc(count)
        if now.pool is not None:
            self.pool.update(now.pool)
        self._warm.clear()
        self._warm_credits.clear()
        for profile, counts in now.warm.items():
            self._warm.labels(profile, "starting").set(counts.starting)
            self._warm.labels(profile, "ready").set(counts.ready)
            self._warm_credits.labels(profile).set(counts.credits_used)
        self._reservations_waiting.set(now.reservations)
        self._permits_used.set(now.used_permits)
        self._permits_limit.set(now.permits)
        self._waiting.set(now.waiting)
        self._stops_pending.set(now.stops_pending)
        self._draining.set(now.draining)
        self._tasks.set(now.tasks)
        self._dropped_log_lines.inc(now.dropped_log_lines - self._dropped_before)
        self._dropped_before = now.dropped_log_lines
        self._dropped_audit_lines.inc(now.dropped_audit_lines - self._dropped_audit_before)
        self._dropped_audit_before = now.dropped_audit_lines

    @never_raises
    def packet_sent(self, size_bytes: int) -> None:
        """Record a packet sent to LiveAvatar."""
        self._packets.inc()
        self._audio_bytes.inc(size_bytes)

    @never_raises
    def stale_audio(self, size_bytes: int) -> None:
        """Record audio dropped because its utterance no longer accepts audio."""
        self._stale_audio_bytes.inc(size_bytes)

    @never_raises
    def paused(self, ended_by: ContinueCause | None = None) -> None:
        """Count the begin of a pause of speech, or its end by a cause."""
        self._pauses.labels("begin" if ended_by is None else ended_by.value).inc()

    @never_raises
    def interrupted(self, seconds: float) -> None:
        """Record the duration of an interrupt."""
        self._interrupts.observe(seconds)

    @never_raises
    def upstream_failed(self, reason: str) -> None:
        """Record a refusal or failure of LiveAvatar; `reason` is from the contract, or `SOCKET_CLOSED`."""
        self._upstream_errors.labels(reason).inc()

    @never_raises
    def kept_alive(self, way: str, outcome: str) -> None:
        """Record a keep-alive by `socket` or `rest`: `sent`, `failed`, or `postponed` if too many are sent."""
        self._keep_alives.labels(way, outcome).inc()

    @never_raises
    def looked_into_room(self, outcome: str) -> None:
        """Record a look into a room: `viewers`, `nobody`, or `failed` if LiveKit could not be asked."""
        self._room_looks.labels(outcome).inc()

    @never_raises
    def listener_opened(self) -> None:
        """Record a stream that hears users."""
        self._listeners.inc()

    @never_raises
    def listener_closed(self) -> None:
        """Record the end of a stream that heard users."""
        self._listeners.dec()

    @never_raises
    def joined_room(self, outcome: str) -> None:
        """Record an attempt to join a room: `joined`, `failed`, or `refused` if another one would not help."""
        self._room_joins.labels(outcome).inc()
        if outcome == "joined":
            self._rooms_joined.inc()

    @never_raises
    def left_room(self) -> None:
        """Record that a room in which users were heard was left."""
        self._rooms_joined.dec()

    @never_raises
    def room_data(self, outcome: str, count: int = 1) -> None:
        """Record data messages: `received` or `dropped` from participants, `sent` or `refused` to them."""
        self._room_data.labels(outcome).inc(count)

    @never_raises
    def user_audio(self, sent_s: float, dropped_s: float) -> None:
        """Record audio of users for one listener."""
        self._user_audio.labels("sent").inc(sent_s)
        self._user_audio.labels("dropped").inc(dropped_s)

    @never_raises
    def taken_over(self, *, adopted: bool) -> None:
        """Record a session of a dead process that was adopted here, or ended."""
        self._taken_over.labels("adopted" if adopted else "swept").inc()

    @never_raises
    def registry_works(self, *, works: bool) -> None:
        """Record if the registry can be written."""
        self._registry_available.set(works)

    @never_raises
    def minutes_billed(self, tenant: str, minutes: int) -> None:
        """Record billed minutes that began."""
        label = self._tenant_label(tenant)
        self._billed_minutes.labels(label).inc(minutes)
        self._billed_seconds.labels(label).inc(minutes * 60)
        self._estimated_credits.labels(label).inc(minutes * CREDITS_PER_MINUTE)

    @never_raises
    def budget_warned(self, tenant: str) -> None:
        """Record that most of a budget is spent."""
        self._budget_warnings.labels(self._tenant_label(tenant)).inc()

    @never_raises
    def budget_refused(self, tenant: str) -> None:
        """Record a session that a spent budget refused."""
        self._budget_refusals.labels(self._tenant_label(tenant)).inc()

    def _tenant_label(self, tenant: str) -> str:
        """Return a tenant as a label: the tenants of the file are many at most, and each series costs memory."""
        if len(self._tenants) < _MAX_TENANTS:
            self._tenants.add(tenant)
        return tenant if tenant in self._tenants else "other"

    @never_raises
    def rpc_began(self, method: str) -> None:
        """Record the begin of a call."""
        self._rpcs_open.labels(method).inc()

    @never_raises
    def rpc_ended(self, method: str, code: str) -> None:
        """Record the end of a call."""
        self._rpcs_open.labels(method).dec()
        self._rpcs.labels(method, code).inc()

    @never_raises
    def quota_refused(self, tenant: str, quota: str) -> None:
        """Record a refusal because a tenant is at one of its quotas."""
        self._quota_refusals.labels(self._tenant_label(tenant), quota).inc()

    @never_raises
    def protection_off(self, protection: str) -> None:
        """Record a protection that settings have switched off."""
        self._exceptions.labels(protection).set(1)

    @never_raises
    def malformed_message(self, method: str) -> None:
        """Record a message that cannot be parsed."""
        self._malformed_messages.labels(method).inc()

    @never_raises
    def call_refused(self, scope: str) -> None:
        """Record a call above a limit of the process."""
        self._calls_refused.labels(scope).inc()

    @never_raises
    def answer_unread(self) -> None:
        """Record a call whose caller did not read an answer in time."""
        self._answers_unread.inc()

    @never_raises
    def connection_closed(self) -> None:
        """Record a connection that was closed for what it left unread."""
        self._connections_closed.inc()

    @never_raises
    def loop_lagged(self, seconds: float) -> None:
        """Record the lag of the event loop."""
        self._lag.observe(seconds)

    def session_meter(self, clock: Callable[[], float] = time.monotonic) -> "SessionMeter":
        """Return the meter of a session that begins now."""
        return SessionMeter(self, clock)

    # --- for SessionMeter

    @never_raises
    def session_opened(self, seconds: float) -> None:
        """Record the time until a session was ready."""
        self._session_open.observe(seconds)

    @never_raises
    def reconnected(self, gap_s: float, resent_bytes: int) -> None:
        """Record a reconnection."""
        self._reconnects.observe(gap_s)
        self._resent_bytes.inc(resent_bytes)

    @never_raises
    def rotated(self, outcome: str) -> None:
        """Record a rotation, or its failure."""
        self._rotations.labels(outcome).inc()

    @never_raises
    def session_ended(self, reason: EndReason | None) -> None:
        """Record the end of a session."""
        self._sessions_ended.labels(reason.value if reason else EndReason.UPSTREAM_FAILED.value).inc()

    @never_raises
    def utterance_started(self, seconds: float) -> None:
        """Record the time until an utterance's first sound."""
        self._utterance_start.observe(seconds)

    @never_raises
    def underrun(self) -> None:
        """Record an underrun inside an utterance."""
        self._underruns.inc()

    @never_raises
    def utterance_ended(self, outcome: Outcome) -> None:
        """Record the end of an utterance."""
        self._utterances.labels(outcome.value).inc()


class SessionMeter:
    """Metrics of one session's events. Keeps the begin of each utterance that has not started."""

    def __init__(self, metrics: Metrics, clock: Callable[[], float]) -> None:
        self._metrics = metrics
        self._clock = clock
        self._created_s = clock()
        self._opened = False
        self._began_at_s: dict[str, float] = {}

    @never_raises
    def utterance_begun(self, utterance_id: str) -> None:
        """Record the begin of an utterance."""
        self._began_at_s[utterance_id] = self._clock()

    @never_raises
    def on_event(  # noqa: C901 - an arm for each kind
        self, event: SessionEvent, end_reason: EndReason | None
    ) -> None:
        """Record an event of the session; `end_reason` is the session's, None until it ends."""
        match event:
            case Adopted():
                # Another process, now dead, opened the session.
                self._opened = True
            case Reconnected(gap_s=gap_s, resent_bytes=resent_bytes):
                self._metrics.reconnected(gap_s, resent_bytes)
            case Rotated(inside=inside):
                self._metrics.rotated("inside" if inside else "border")
            case StateChanged(state=SessionState.READY) if not self._opened:
                self._opened = True
                self._metrics.session_opened(self._clock() - self._created_s)
            case UtteranceStarted(utterance_id=utterance_id):
                if (began_at_s := self._began_at_s.pop(utterance_id, None)) is not None:
                    self._metrics.utterance_started(self._clock() - began_at_s)
            case UtteranceUnderrun():
                self._metrics.underrun()
            case SpeechPaused():
                self._metrics.paused()
            case SpeechContinued(cause=cause):
                self._metrics.paused(cause)
            case UtteranceEnded(utterance_id=utterance_id, outcome=outcome, error=error):
                self._began_at_s.pop(utterance_id, None)
                self._metrics.utterance_ended(outcome)
                self._concluded(error)
            case Ended(error=error):
                self._metrics.session_ended(end_reason)
                self._concluded(error)

    def _concluded(self, error: GatewayError | None) -> None:
        """Record errors inferred from LiveAvatar's silence; reported errors are recorded on receipt."""
        if isinstance(error, ReadyTimeout | UpstreamStalled):
            self._metrics.upstream_failed(error.reason)
