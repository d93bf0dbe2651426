"""The emulated service as one object: accounts, minted tokens, running and ended sessions, counters.

Everything that answers a request or a socket goes through here. It owns the clocks; the rules are in
`account.py` and `session.py`.
"""

import itertools
import secrets
from collections import Counter, OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol

import structlog

from liveavatar_emulator import errors, rooms, session_request, tokens
from liveavatar_emulator.account import Account, SessionRecord
from liveavatar_emulator.clock import Clock, ManualClock, RealClock
from liveavatar_emulator.config import LiveKitServer, ServerConfig, Settings, changed, check_room_clock
from liveavatar_emulator.counters import counters_of
from liveavatar_emulator.driver import LiveSession, Performer
from liveavatar_emulator.eventlog import EventLog
from liveavatar_emulator.fault_injector import FaultInjector
from liveavatar_emulator.lateness import Lateness
from liveavatar_emulator.ratelimit import RateLimiter
from liveavatar_emulator.recording import AudioBudget, Recording
from liveavatar_emulator.scenario import Restart, Scenario
from liveavatar_emulator.scenario_run import Busy, ScenarioRun
from liveavatar_emulator.seeds import Seed, uuid_from
from liveavatar_emulator.session import Over, Session
from liveavatar_emulator.session_request import SessionRequest

_log = structlog.stdlib.get_logger()

NO_SCENARIO = Scenario()

KNOWN_REFUSALS = (
    "400/4000",
    "401/401",
    "403/4030",
    "403/4032",
    "403/4033",
    "404/404",
    "422",
    "429/4290",
    "500/500",
)


@dataclass(slots=True)
class Ticket:
    """A minted session, started or not."""

    session_id: str
    account: Account
    order: SessionRequest
    minted_s: float
    started: bool = False


class Avatar(Performer, Protocol):
    """A session's avatar in a room."""

    def row(self) -> dict[str, Any]:
        """What became of it, as JSON."""


class Stage(Protocol):
    """Where avatars live, when there is a LiveKit server; see `avatar/stage.py`."""

    livekit: LiveKitServer

    def admit(
        self,
        session_id: str,
        seat: rooms.RoomParticipant,
        *,
        quality: str,
        encoding: str,
        joined: Callable[[], None],
        lost: Callable[[], None],
    ) -> Avatar:
        """Send an avatar on its way into a room. `joined` and `lost` are called later, never from inside."""

    async def clear(self) -> None:
        """Make every avatar leave, within a bound."""


@dataclass(slots=True, eq=False)
class Entry:
    """A started session: its record, its ticket, its life, and its avatar when there is a room for one."""

    record: SessionRecord
    ticket: Ticket
    secret: str
    live: LiveSession
    avatar: Avatar | None


class Emulator:
    """The emulated service."""

    def __init__(
        self,
        config: ServerConfig,
        settings: Settings,
        stage: Stage | None = None,
        scenario: Scenario = NO_SCENARIO,
    ) -> None:
        self.config = config
        self.clock: Clock = ManualClock() if config.clock == "manual" else RealClock(config.clock_speed)
        self.stage = stage
        self.settings = settings
        self._initial_settings = settings
        self._initial_scenario = scenario
        self.run: ScenarioRun | None = None
        self.bring_down: Callable[[float], None] | None = None
        """Resets every connection and refuses new ones for so many seconds, then calls `is_back`."""
        self._down = False
        self.rate_limiter = RateLimiter()
        self.seed = Seed(config.seed)
        self.ids = self.seed.stream("ids")
        self.log = EventLog(self.clock, config.event_log)
        self.log.note("emulator.started", seed=config.seed, clock=self.clock.mode)
        self.faults = FaultInjector(self.clock, self.seed, self.log)
        self._accounts_by_key: dict[str, Account] = {}
        accounts: dict[str, Account] = {}
        for entry in config.api_keys:
            name, _, key = entry.rpartition("=")
            name = name or f"account-{len(accounts) + 1}"
            self._accounts_by_key[key] = accounts.setdefault(name, Account(name, settings.credits))
        self.accounts = tuple(accounts.values())
        self._jwt_secret = secrets.token_bytes(32)
        self._said_dummy_rooms = False
        self._forget_everything()

    def _forget_everything(self) -> None:
        self._tickets: OrderedDict[str, Ticket] = OrderedDict()
        self.sessions: OrderedDict[str, Entry] = OrderedDict()
        self._by_secret: dict[str, Entry] = {}
        self.audio_budget = AudioBudget(int(self.settings.keep_audio_total_mb * 1_000_000))
        self.forgotten: Counter[str] = Counter()
        self.refusals: Counter[str] = Counter(dict.fromkeys(KNOWN_REFUSALS, 0))
        self.started_total = 0
        self.ended: Counter[str] = Counter()
        self.lateness = Lateness()

    # -- accounts
    # ----------------------------------------------------------------------------------------------

    def account_of(self, api_key: str) -> Account | None:
        """The account an API key opens."""
        return self._accounts_by_key.get(api_key)

    def ticket_of(self, session_token: str) -> Ticket | None:
        """The session a bearer token is for; None when the token is not ours or was forgotten."""
        try:
            claims = tokens.verify(session_token, self._jwt_secret)
        except tokens.BadToken:
            return None
        session_id = str(claims.get("sub"))
        entry = self.sessions.get(session_id)
        return entry.ticket if entry is not None else self._tickets.get(session_id)

    # -- a session's life
    # --------------------------------------------------------------------------------------------

    def mint(self, account: Account, order: SessionRequest) -> tuple[Ticket, str]:
        """A session id with its bearer token. Free; takes no slot.

        Raises:
            ApiError: 400 for the avatar, the duration or a secret, 403/4030 for the quality.
        """
        settings = self.settings
        session_request.check(order, account, settings)
        now_s = self.clock.now_s()
        self._drop_expired_tickets(now_s)
        ticket = Ticket(session_id=uuid_from(self.ids), account=account, order=order, minted_s=now_s)
        self._tickets[ticket.session_id] = ticket
        issued = int(self.clock.utc_s())
        claims: dict[str, Any] = {
            "sub": ticket.session_id,
            "iat": issued,
            "exp": issued + int(settings.token_ttl_s),
            "jti": secrets.token_hex(8),
            "start_session_data": {"mode": "LITE"},
        }
        if order.connector is not None:
            claims["start_session_data"] = {"mode": "LITE", order.connector.field: order.connector.config}
        return ticket, tokens.sign(claims, self._jwt_secret)

    def start(self, ticket: Ticket, ws_base: str) -> dict[str, Any]:
        """Start a minted session and return start's `data`; `ws_base` is the scheme and host of its `ws_url`.

        Raises:
            ApiError: 401 expired token, 400 second start or deleted avatar, 500 incomplete room grants, 403 no
            slot or no credit.
        """
        settings = self.settings
        now_s = self.clock.now_s()
        if ticket.started:
            raise errors.ApiError(400, errors.VALIDATION, "Session already started")
        if now_s - ticket.minted_s > settings.token_ttl_s:
            raise errors.unauthorized("Session token has expired")
        order = ticket.order
        if order.avatar_id in ticket.account.avatars.deleted:
            raise session_request.no_access(order.avatar_id)
        if order.livekit_room is not None and not rooms.grants_complete(order.livekit_room):
            raise errors.server_error()
        record = SessionRecord(
            id=ticket.session_id,
            account=ticket.account.name,
            avatar_id=order.avatar_id,
            is_sandbox=order.is_sandbox,
            created_at=self.now_utc(),
            started_s=now_s,
            context_id=order.connector.context_id if order.connector else None,
        )
        ticket.account.admit(record, settings, now_s)
        ticket.started = True
        self._tickets.pop(ticket.session_id, None)
        self.started_total += 1
        entry = self._open(ticket, record, now_s)
        _log.info("session.started", session=record.id, account=record.account, sandbox=order.is_sandbox)
        if self.stage is None and not self._said_dummy_rooms:
            self._said_dummy_rooms = True
            _log.warning(
                "rooms.dummy", hint="no LiveKit server is configured: room tokens are filled but lead nowhere"
            )
        answer: dict[str, Any] = {
            "session_id": ticket.session_id,
            "max_session_duration": order.max_session_duration,
        }
        if order.connector is None:
            answer["ws_url"] = f"{ws_base}/ws/{entry.secret}"
        room = rooms.credentials(
            ticket.session_id,
            order.livekit_room,
            self.clock.utc_s(),
            order.max_session_duration,
            self.config.livekit,
        )
        if (order.livekit_room is not None or order.own_channel) and settings.byo_livekit_fields == "omitted":
            return answer
        if order.own_channel or (order.livekit_room is not None and settings.byo_livekit_fields == "null"):
            room = dict.fromkeys(room)
        return {**answer, **room}

    def _open(self, ticket: Ticket, record: SessionRecord, now_s: float) -> Entry:
        settings = self.settings
        # A caller's own channel is Agora's, where no avatar of ours can go.
        stage = None if ticket.order.own_channel else self.stage
        recording = Recording(
            started_mono_s=now_s, keep_bytes=int(settings.keep_audio_mb * 1_000_000), budget=self.audio_budget
        )
        numbers = itertools.count(1)
        prefix = f"evt-{record.id[:8]}"
        core = Session(
            settings=settings,
            recording=recording,
            fresh_id=lambda: f"{prefix}-{next(numbers)}",
            now_s=now_s,
            limit_s=ticket.order.max_session_duration,
            billed=not record.is_sandbox,
            hosted=ticket.order.connector is not None,
            on_stage=stage is not None,
        )
        avatar = None
        if stage is not None:
            avatar = stage.admit(
                record.id,
                rooms.avatar_seat(
                    record.id, ticket.order.livekit_room, stage.livekit, ticket.order.max_session_duration
                ),
                quality=ticket.order.quality,
                encoding=ticket.order.encoding,
                joined=lambda: live.avatar_joined(),  # noqa: PLW0108 - there is no `live` yet
                lost=lambda: self._lose_avatar(ticket.account, record, live),
            )
        live = LiveSession(
            core,
            ordinal=self.started_total,
            clock=self.clock,
            rng=self.seed.stream(f"session-{self.started_total}"),
            log=self.log,
            lateness=self.lateness,
            charge_minute=lambda: ticket.account.charge_minute(overage=self.settings.overage),
            on_over=lambda over: self._file(record, live.ordinal, over),
            performer=avatar,
        )
        entry = Entry(record=record, ticket=ticket, secret=secrets.token_urlsafe(24), live=live, avatar=avatar)
        self.sessions[record.id] = entry
        self._by_secret[entry.secret] = entry
        self._forget_oldest()
        self.log.note("session.started", session=live.ordinal, id=record.id)
        self.faults.session_started(record.id, live)
        if self.run is not None:
            self.run.session_started(live)
        return entry

    def _lose_avatar(self, account: Account, record: SessionRecord, live: LiveSession) -> None:
        """End a session whose avatar is not in its room; one that was never ready costs nothing."""
        if live.core.ready_s is None:
            account.refund(record)
        live.stop("SERVER_ERROR")

    def stop(self, session_id: str, account: Account, reason: str) -> None:
        """End a session.

        Raises:
            ApiError: 404 when it is not this account's, or is over.
        """
        self._running(session_id, account).live.stop(reason)

    def keep_alive(self, session_id: str, account: Account) -> None:
        """Reset a session's idle timer.

        Raises:
            ApiError: 404 when it is not this account's, or is over.
        """
        self._running(session_id, account).live.keep_alive()

    def entry_for_socket(self, secret: str) -> Entry | None:
        """The running session a `ws_url` leads to; one driven by a connector has none."""
        entry = self._by_secret.get(secret)
        if entry is None or not entry.record.active or entry.ticket.order.connector is not None:
            return None
        return entry

    def delete_avatar(self, account: Account, avatar_id: str) -> None:
        """Take an own avatar out of use, and end its running sessions with AVATAR_DELETED.

        Raises:
            ApiError: 404 or 400 for one that is not the account's.
        """
        session_request.own_avatar(account, avatar_id, self.settings)
        account.avatars.deleted.add(avatar_id)
        for record in account.history(active=True, avatar_id=avatar_id):
            self.sessions[record.id].live.stop("AVATAR_DELETED")

    def _running(self, session_id: str, account: Account) -> Entry:
        entry = self.sessions.get(session_id)
        if entry is None or account.records.get(session_id) is not entry.record or not entry.record.active:
            raise errors.not_found("Session")
        return entry

    def _file(self, record: SessionRecord, ordinal: int, over: Over) -> None:
        record.ended_s = over.at_s
        record.end_reason = over.reason
        self.ended[over.reason] += 1
        self.log.note("session.ended", session=ordinal, reason=over.reason)
        self.faults.session_over(ordinal)
        if self.run is not None:
            self.run.session_over(ordinal)
        _log.info(
            "session.ended",
            session=record.id,
            reason=over.reason,
            seconds=round(record.duration_s(over.at_s), 3),
        )

    def _drop_expired_tickets(self, now_s: float) -> None:
        while self._tickets:
            oldest = next(iter(self._tickets.values()))
            # Twice the lifetime, so that a late start is told that its token expired and not that it never
            # was.
            if now_s - oldest.minted_s <= 2 * self.settings.token_ttl_s:
                return
            del self._tickets[oldest.session_id]

    def _forget_oldest(self) -> None:
        surplus = len(self.sessions) - self.settings.keep_sessions
        if surplus <= 0:
            return
        ended = [entry for entry in self.sessions.values() if not entry.record.active]
        for entry in ended[:surplus]:
            self.forgotten.update(counters_of(entry.live.core.recording))
            entry.live.dispose()
            entry.live.core.recording.forget_audio()
            entry.ticket.account.records.pop(entry.record.id, None)
            del self.sessions[entry.record.id]
            del self._by_secret[entry.secret]

    def now_utc(self) -> datetime:
        """The wall clock."""
        return datetime.fromtimestamp(self.clock.utc_s(), UTC)

    def now_s(self) -> float:
        """The clock of everything here."""
        return self.clock.now_s()

    def at_s(self) -> float:
        """Emulator seconds since its start, to the microsecond."""
        return round(self.clock.now_s() - self.clock.origin_s, 6)

    def refresh(self) -> None:
        """Bring running sessions up to the present, so that what is read is true even if a timer is late."""
        for entry in list(self.sessions.values()):
            if entry.record.active:
                entry.live.refresh()

    # -- control
    # -----------------------------------------------------------------------------------------------

    def configure(self, settings: Settings, *, refill: bool) -> None:
        """Make these the settings of everything, running sessions included; `refill` resets every balance."""
        self.settings = settings
        self.audio_budget.total_bytes = int(settings.keep_audio_total_mb * 1_000_000)
        if refill:
            for account in self.accounts:
                account.balance = settings.credits
        for entry in list(self.sessions.values()):
            if entry.record.active:
                entry.live.configure(settings)

    def reset(self, *, restore_settings: bool) -> None:
        """Forget sessions, tokens, counters and faults, refill balances, and close every socket."""
        for entry in self.sessions.values():
            entry.live.dispose()
        self.log.note("reset")
        if restore_settings:
            self.settings = self._initial_settings
        for account in self.accounts:
            account.balance = self.settings.credits
            account.forget()
        self.faults.clear()
        self.faults = FaultInjector(self.clock, self.seed, self.log)
        self.rate_limiter = RateLimiter()
        self._forget_everything()
        self.play(self._initial_scenario if restore_settings else None)

    def play(self, scenario: Scenario | None) -> None:
        """Begin a scenario's timeline in place of the one under way; its knobs are the caller's to set."""
        if self.run is not None:
            self.run.stop()
            self.run = None
        if scenario is not None and (scenario.at or scenario.when):
            self.log.note("scenario.begins")
            self.run = ScenarioRun(
                scenario, operations=self, director=self.faults, clock=self.clock, seed=self.seed, log=self.log
            )

    def begin(self) -> None:
        """Begin the scenario of the start; called once, on the event loop."""
        self.play(self._initial_scenario)

    def change_settings(self, changes: dict[str, Any]) -> None:
        """Change knobs, running sessions included.

        Raises:
            UnknownSetting: one is no knob.
            InvalidSetting: one is out of range, or not possible with rooms.
        """
        new = changed(self.settings, changes)
        if self.stage is not None:
            check_room_clock(new)
        self.log.note("settings", changes=changes)
        self.configure(new, refill="credits" in changes)

    def end_sessions(self, ordinals: list[int], reason: str) -> None:
        """End running sessions, as if the service had decided so."""
        for entry in list(self.sessions.values()):
            if entry.live.ordinal in ordinals:
                entry.live.stop(reason)

    def restart(self, order: Restart) -> None:
        """Reset every connection and refuse new ones for a while; sessions live on, or end with SERVER_ERROR.

        Raises:
            Busy: it is down already.
        """
        if self._down:
            raise Busy("the service is down already")
        self._down = True
        self.log.note("restart", down_s=order.down_s, keep_sessions=order.keep_sessions)
        running = [entry for entry in self.sessions.values() if entry.record.active]
        for entry in running:
            entry.live.drop(None, "")
        if not order.keep_sessions:
            self._tickets.clear()
            for entry in running:
                entry.live.stop("SERVER_ERROR")
        self.rate_limiter = RateLimiter()
        if self.bring_down is None:
            self.is_back()
        else:
            self.bring_down(order.down_s)

    @property
    def minted_waiting(self) -> int:
        """Sessions that were minted and not started."""
        return len(self._tickets)

    def is_back(self) -> None:
        """The service can be reached again."""
        self._down = False
        self.log.note("restart.done")

    def refuse(self, status: int, code: int | None) -> None:
        """Count a refused call under `status/code`."""
        self.refusals[str(status) if code is None else f"{status}/{code}"] += 1
