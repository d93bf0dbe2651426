"""The emulated service: accounts, sessions, settings, faults and scenario behind the REST API and the sockets.

Rules of billing and of a single session are in `account.py` and `session.py`.
"""

import asyncio
import itertools
import secrets
from collections import Counter
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Protocol

import structlog

from liveavatar_emulator import errors, rooms, session_request, tokens
from liveavatar_emulator.account import NO_LIMITS, Account, SessionRecord
from liveavatar_emulator.account_limits import AccountLimits
from liveavatar_emulator.clock import Clock, ManualClock, RealClock
from liveavatar_emulator.config import (
    InvalidSetting,
    LiveKitServer,
    ServerConfig,
    Settings,
    changed,
    check_room_clock,
)
from liveavatar_emulator.driver import Avatar, SessionDriver
from liveavatar_emulator.effects import SessionEnded
from liveavatar_emulator.eventlog import EventLog
from liveavatar_emulator.fault_injector import FaultInjector
from liveavatar_emulator.hosted_agent import HostedAgent
from liveavatar_emulator.ratelimit import RateLimiter
from liveavatar_emulator.recording import AudioBudget, Recording
from liveavatar_emulator.scenario import Restart, Scenario
from liveavatar_emulator.scenario_run import AlreadyRestarting, ScenarioRun
from liveavatar_emulator.seeds import Seed, uuid_from
from liveavatar_emulator.session import Session
from liveavatar_emulator.session_request import SessionRequest
from liveavatar_emulator.session_store import MintedSession, SessionStore, StartedSession
from liveavatar_emulator.timer_lag import TimerLag

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


class AvatarHost(Protocol):
    """Host of the room avatars, present if a LiveKit server is configured; see `avatar/host.py`."""

    livekit: LiveKitServer

    def join(
        self,
        session_id: str,
        access: rooms.RoomAccess,
        *,
        quality: str,
        encoding: str,
        has_video: bool,
        joined: Callable[[], None],
        lost: Callable[[], None],
        heard: Callable[[str, bytes], None] | None = None,
    ) -> Avatar:
        """Start joining a room. `joined` and `lost` are called later, never from inside this call.

        With `heard`, the avatar listens to users, and passes on the name and audio of each.
        """

    async def clear(self) -> None:
        """Make every avatar leave, within a time limit."""


class Emulator:
    """The emulated service."""

    def __init__(
        self,
        config: ServerConfig,
        settings: Settings,
        avatar_host: AvatarHost | None = None,
        scenario: Scenario = NO_SCENARIO,
    ) -> None:
        self.config = config
        self.clock: Clock = ManualClock() if config.clock == "manual" else RealClock(config.clock_speed)
        self.avatar_host = avatar_host
        self.settings = settings
        self._initial_settings = settings
        self._initial_scenario = scenario
        self.run: ScenarioRun | None = None
        self.restarts: asyncio.Queue[float] = asyncio.Queue()
        """Requested outages in seconds. The HTTP server takes each, and calls `finish_restart` after it."""
        self._restarting = False
        self.rate_limiter = RateLimiter()
        self.seed = Seed(config.seed)
        self.ids = self.seed.stream("ids")
        self.log = EventLog(self.clock, config.event_log)
        self.log.append("emulator.started", seed=config.seed, clock=self.clock.mode)
        self.faults = FaultInjector(self.clock, self.seed, self.log)
        self._accounts_by_key: dict[str, Account] = {}
        accounts: dict[str, Account] = {}
        for entry in config.api_keys:
            name, _, key = entry.rpartition("=")
            name = name or f"account-{len(accounts) + 1}"
            limits = config.account_limits.get(name, NO_LIMITS)
            self._accounts_by_key[key] = accounts.setdefault(name, Account(name, settings.credits, limits))
        if unknown := sorted(set(config.account_limits) - set(accounts)):
            raise InvalidSetting("account_limits", f"no API key belongs to the account {unknown[0]!r}")
        self.accounts = tuple(accounts.values())
        self._jwt_secret = secrets.token_bytes(32)
        self._dummy_rooms_logged = False
        self._clear_state()

    def _clear_state(self) -> None:
        self.sessions = SessionStore()
        self.audio_budget = AudioBudget(int(self.settings.keep_audio_total_mb * 1_000_000))
        self.refusals: Counter[str] = Counter(dict.fromkeys(KNOWN_REFUSALS, 0))
        self.timer_lag = TimerLag()

    # -- credentials
    # -------------------------------------------------------------------------------------------

    def account_of(self, api_key: str) -> Account | None:
        """Return the account of an API key; None for an unknown and for a revoked key."""
        account = self._accounts_by_key.get(api_key)
        return None if account is None or api_key in account.limits.revoked_keys else account

    def session_of_token(self, session_token: str) -> MintedSession | None:
        """Return the session of a bearer token; None for a foreign or a forgotten token."""
        try:
            claims = tokens.verify(session_token, self._jwt_secret)
        except tokens.BadToken:
            return None
        return self.sessions.minted(str(claims.get("sub")))

    # -- life of a session
    # -------------------------------------------------------------------------------------

    def mint(self, account: Account, request: SessionRequest) -> tuple[MintedSession, str]:
        """Mint a session and return it with its bearer token. Takes neither credits nor a slot.

        Raises:
            ApiError: 400 for the avatar, the duration or a secret, 403/4030 for the quality.
        """
        settings = self.settings
        session_request.check(request, account, settings)
        now_s = self.clock.now_s()
        # Kept for twice its lifetime, so that a late start is refused as expired and not as unknown.
        self.sessions.drop_minted(minted_before_s=now_s - 2 * settings.token_ttl_s)
        minted = MintedSession(session_id=uuid_from(self.ids), account=account, request=request, minted_s=now_s)
        self.sessions.add_minted(minted)
        issued = int(self.clock.utc_s())
        claims: dict[str, Any] = {
            "sub": minted.session_id,
            "iat": issued,
            "exp": issued + int(settings.token_ttl_s),
            "jti": secrets.token_hex(8),
            "start_session_data": {"mode": "LITE"},
        }
        if request.connector is not None:
            claims["start_session_data"] = {"mode": "LITE", request.connector.field: request.connector.config}
        return minted, tokens.sign(claims, self._jwt_secret)

    def start(self, minted: MintedSession, ws_base: str) -> dict[str, Any]:
        """Start a minted session and return `data` of the response.

        Args:
            minted: the session to start.
            ws_base: scheme and host of its `ws_url`.

        Raises:
            ApiError: 401 expired token, 400 second start or deleted avatar, 500 incomplete room grants, 403 no
            slot or no credit.
        """
        settings = self.settings
        now_s = self.clock.now_s()
        if minted.started:
            raise errors.ApiError(400, errors.VALIDATION, "Session already started")
        if now_s - minted.minted_s > settings.token_ttl_s:
            raise errors.unauthorized("Session token has expired")
        request = minted.request
        if request.avatar_id in minted.account.avatars.deleted:
            raise session_request.no_access(request.avatar_id)
        if request.livekit_room is not None and not rooms.grants_complete(request.livekit_room):
            raise errors.server_error()
        record = SessionRecord(
            id=minted.session_id,
            account=minted.account.name,
            avatar_id=request.avatar_id,
            is_sandbox=request.is_sandbox,
            created_at=self.now_utc(),
            started_s=now_s,
            context_id=request.connector.context_id if request.connector else None,
        )
        minted.account.admit(record, settings, now_s)
        started = self._open(minted, record, self.sessions.mark_started(minted), now_s)
        _log.info("session.started", session=record.id, account=record.account, sandbox=request.is_sandbox)
        if self.avatar_host is None and not self._dummy_rooms_logged:
            self._dummy_rooms_logged = True
            _log.warning(
                "rooms.dummy", hint="no LiveKit server is configured: room tokens are filled but lead nowhere"
            )
        return self._start_data(started, ws_base)

    def _start_data(self, started: StartedSession, ws_base: str) -> dict[str, Any]:
        request, byo_fields = started.minted.request, self.settings.byo_livekit_fields
        data: dict[str, Any] = {
            "session_id": started.record.id,
            "max_session_duration": request.max_session_duration,
        }
        if request.connector is None:
            data["ws_url"] = f"{ws_base}/ws/{started.secret}"
        room = rooms.credentials(
            started.record.id,
            request.livekit_room,
            self.clock.utc_s(),
            request.max_session_duration,
            self.config.livekit,
        )
        if (request.livekit_room is not None or request.agora_room is not None) and byo_fields == "omitted":
            return data
        if request.agora_room is not None or (request.livekit_room is not None and byo_fields == "null"):
            room = dict.fromkeys(room)
        return {**data, **room}

    def _open(self, minted: MintedSession, record: SessionRecord, ordinal: int, now_s: float) -> StartedSession:
        settings, request = self.settings, minted.request
        # Agora channels have no avatar of the emulator.
        avatar_host = None if request.agora_room is not None else self.avatar_host
        recording = Recording(
            started_mono_s=now_s, keep_bytes=int(settings.keep_audio_mb * 1_000_000), budget=self.audio_budget
        )
        numbers = itertools.count(1)
        prefix = f"evt-{record.id[:8]}"
        session = Session(
            settings=settings,
            recording=recording,
            fresh_id=lambda: f"{prefix}-{next(numbers)}",
            now_s=now_s,
            limit_s=request.max_session_duration,
            billed=not record.is_sandbox,
            has_connector=request.connector is not None,
            has_avatar=avatar_host is not None,
        )
        avatar = None

        def hear(user: str, pcm: bytes) -> None:
            driver.hear(user, pcm)

        if avatar_host is not None:
            avatar = avatar_host.join(
                record.id,
                rooms.avatar_access(
                    record.id, request.livekit_room, avatar_host.livekit, request.max_session_duration
                ),
                quality=request.quality,
                encoding=request.encoding,
                has_video=settings.avatar_video,
                joined=lambda: driver.avatar_joined(),  # noqa: PLW0108 - `driver` is assigned below
                lost=lambda: self._lose_avatar(minted.account, record, driver),
                heard=hear if request.connector is not None else None,
            )
        driver = SessionDriver(
            session,
            ordinal=ordinal,
            clock=self.clock,
            rng=self.seed.stream(f"session-{ordinal}"),
            log=self.log,
            timer_lag=self.timer_lag,
            charge_minute=lambda: minted.account.charge_minute(overage=self.settings.overage),
            on_ended=lambda ended: self._on_ended(record, ordinal, ended),
            avatar=avatar,
            agent=None if request.connector is None else HostedAgent(),
        )
        started = StartedSession(record, minted, secrets.token_urlsafe(24), driver, avatar)
        self.sessions.add(started, keep=settings.keep_sessions)
        self.log.append("session.started", session=ordinal, id=record.id)
        self.faults.session_started(record.id, driver)
        if self.run is not None:
            self.run.session_started(driver)
        return started

    def _lose_avatar(self, account: Account, record: SessionRecord, driver: SessionDriver) -> None:
        """End a session whose avatar is not in its room, and refund it if it was never ready."""
        if driver.session.ready_s is None:
            account.refund(record)
        driver.stop("SERVER_ERROR")

    def _on_ended(self, record: SessionRecord, ordinal: int, ended: SessionEnded) -> None:
        record.ended_s = ended.at_s
        record.end_reason = ended.reason
        self.sessions.ended[ended.reason] += 1
        self.log.append("session.ended", session=ordinal, reason=ended.reason)
        self.faults.session_ended(ordinal)
        if self.run is not None:
            self.run.session_ended(ordinal)
        _log.info(
            "session.ended",
            session=record.id,
            reason=ended.reason,
            seconds=round(record.duration_s(ended.at_s), 3),
        )

    def stop(self, session_id: str, account: Account, reason: str) -> None:
        """End a session.

        Raises:
            ApiError: 404 for a session that belongs to another account, or has ended.
        """
        self.sessions.running(session_id, account).driver.stop(reason)

    def keep_alive(self, session_id: str, account: Account) -> None:
        """Restart a session's idle timer.

        Raises:
            ApiError: 404 for a session that belongs to another account, or has ended.
        """
        self.sessions.running(session_id, account).driver.keep_alive()

    def delete_avatar(self, account: Account, avatar_id: str) -> None:
        """Delete an own avatar, and end its running sessions with AVATAR_DELETED.

        Raises:
            ApiError: 404 or 400 for an avatar of another account.
        """
        session_request.own_avatar(account, avatar_id, self.settings)
        account.avatars.deleted.add(avatar_id)
        for record in account.history(active=True, avatar_id=avatar_id):
            self.sessions.running(record.id, account).driver.stop("AVATAR_DELETED")

    # -- time
    # --------------------------------------------------------------------------------------------------

    def now_utc(self) -> datetime:
        """Return the wall-clock time."""
        return datetime.fromtimestamp(self.clock.utc_s(), UTC)

    def now_s(self) -> float:
        """Return the time of the emulator's clock."""
        return self.clock.now_s()

    def at_s(self) -> float:
        """Return emulator seconds since the start, to the microsecond."""
        return round(self.clock.now_s() - self.clock.origin_s, 6)

    def refresh(self) -> None:
        """Advance running sessions to the present time, so that values read from them are current."""
        for started in self.sessions.active():
            started.driver.refresh()

    # -- control
    # -----------------------------------------------------------------------------------------------

    def change_settings(self, changes: dict[str, Any]) -> None:
        """Change knobs, also for running sessions; a change of `credits` resets every balance.

        Raises:
            UnknownSetting: a name is no knob.
            InvalidSetting: a value is out of range, or not possible with rooms.
        """
        new = changed(self.settings, changes)
        if self.avatar_host is not None:
            check_room_clock(new)
        self.log.append("settings", changes=changes)
        self.settings = new
        self.audio_budget.total_bytes = int(new.keep_audio_total_mb * 1_000_000)
        if "credits" in changes:
            for account in self.accounts:
                account.reset_balance(new.credits)
        for started in self.sessions.active():
            started.driver.configure(new)

    def change_account(self, name: str, changes: Mapping[str, Any]) -> Account:
        """Change limits and revoked keys of an account; `credits` sets its balance.

        Raises:
            KeyError: no API key belongs to such an account.
            ValidationError: a limit is unknown or out of range.
        """
        account = next((one for one in self.accounts if one.name == name), None)
        if account is None:
            raise KeyError(name)
        limits = AccountLimits.model_validate({**account.limits.model_dump(), **changes})
        self.log.append("account", account=name, changed=sorted(changes))
        account.limits = limits
        if "credits" in changes:
            account.reset_balance(self.settings.credits)
        return account

    def reset(self, *, restore_settings: bool) -> None:
        """Forget sessions, tokens, counters and faults, reset balances, and close every socket."""
        for started in self.sessions:
            started.driver.dispose()
        self.log.append("reset")
        if restore_settings:
            self.settings = self._initial_settings
        for account in self.accounts:
            account.reset_balance(self.settings.credits)
            account.forget()
        self.faults.clear()
        self.faults = FaultInjector(self.clock, self.seed, self.log)
        self.rate_limiter = RateLimiter()
        self._clear_state()
        self.play(self._initial_scenario if restore_settings else None)

    def begin(self) -> None:
        """Begin the initial scenario; called once, on the event loop."""
        self.play(self._initial_scenario)

    def play(self, scenario: Scenario | None) -> None:
        """Replace the current scenario's timeline by that of `scenario`; the caller sets the scenario's knobs."""
        if self.run is not None:
            self.run.stop()
            self.run = None
        if scenario is not None and (scenario.at or scenario.when):
            self.log.append("scenario.begins")
            self.run = ScenarioRun(
                scenario,
                operations=self,
                fault_injector=self.faults,
                clock=self.clock,
                seed=self.seed,
                log=self.log,
            )

    def end_sessions(self, ordinals: list[int], reason: str) -> None:
        """End running sessions on behalf of the service."""
        for started in self.sessions:
            if started.driver.ordinal in ordinals:
                started.driver.stop(reason)

    def restart(self, restart: Restart) -> None:
        """Reset every connection and refuse new ones for a while; sessions live on, or end with SERVER_ERROR.

        Raises:
            AlreadyRestarting: another restart is not finished.
        """
        if self._restarting:
            raise AlreadyRestarting("the service is down already")
        self._restarting = True
        self.log.append("restart", down_s=restart.down_s, keep_sessions=restart.keep_sessions)
        running = self.sessions.active()
        for started in running:
            started.driver.drop(None, "")
        if not restart.keep_sessions:
            self.sessions.drop_minted()
            for started in running:
                started.driver.stop("SERVER_ERROR")
        self.rate_limiter = RateLimiter()
        self.restarts.put_nowait(restart.down_s)

    def finish_restart(self) -> None:
        """Note that the HTTP server accepts connections again."""
        self._restarting = False
        self.log.append("restart.done")

    def count_refusal(self, status: int, code: int | None) -> None:
        """Count a refused call under `status/code`."""
        self.refusals[str(status) if code is None else f"{status}/{code}"] += 1
