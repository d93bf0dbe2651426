"""LiveAvatar account as this process uses it: its key, its health, and the stopper of its sessions."""

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final

import structlog

from liveavatar_gateway.core.errors import (
    CapacityExhausted,
    GatewayError,
    UpstreamCreditsExhausted,
    UpstreamRateLimited,
    UpstreamUnauthenticated,
    UpstreamUnreachable,
)
from liveavatar_gateway.pool.account_health import (
    AccountHealth,
    AccountState,
    Candidate,
    HealthConfig,
    Trouble,
    is_doubtful,
)
from liveavatar_gateway.upstream.active_sessions import ActiveSessions
from liveavatar_gateway.upstream.model import AvatarRequest, RemoteStatus
from liveavatar_gateway.upstream.rest import Rest
from liveavatar_gateway.upstream.rest_keepalive import RestKeepAlives
from liveavatar_gateway.upstream.stopper import StopCall, StopConfig, Stopper

_log = structlog.get_logger(__name__)

_STATUS_TIMEOUT_S = 3.0
_PAUSED_RETRY_S: Final = 30.0
DEFAULT_ACCOUNT: Final = "default"
"""Name of the only account of a gateway without a file of accounts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountConfig:
    """Limits of the calls to an account, and the retry policy of its stops."""

    health: HealthConfig = field(default_factory=HealthConfig)
    stop: StopConfig = field(default_factory=StopConfig)


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountSpec:
    """Account as it is configured."""

    name: str = DEFAULT_ACCOUNT
    """Name for people, and the label of metrics."""
    id: str = DEFAULT_ACCOUNT
    """Name of the account in the registry: the same in all processes, and no other account's."""
    former_ids: frozenset[str] = frozenset()
    """Names under which sessions of earlier starts are in the registry."""
    api_key: str = field(default="", repr=False)
    max_sessions: int = 1
    """Concurrent sessions."""
    cost: float = 1.0
    """Relative price of a minute."""
    avatars: frozenset[str] | None = None
    """Avatars that the account is used for; None for all."""
    tenants: frozenset[str] | None = None
    """Tenants that may use the account; None for all callers."""
    state: AccountState = AccountState.ACTIVE
    is_former: bool = False
    """True for the key of an earlier set-up: its sessions are ended, and none continues."""

    def serves(self, request: AvatarRequest, tenant: str) -> bool:
        """Return whether the account may be used for a request of a tenant."""
        return (self.avatars is None or request.avatar_id in self.avatars) and (
            self.tenants is None or tenant in self.tenants
        )


class Account:
    """Account of one API key. The creator of `rest` closes it."""

    def __init__(
        self,
        spec: AccountSpec,
        config: AccountConfig,
        rest: Rest,
        *,
        health: AccountHealth | None = None,
        stop_call: StopCall | None = None,
    ) -> None:
        """Prepare; nothing is called yet.

        Args:
            spec: Account as it is configured.
            config: Limits and retries.
            rest: REST client with the account's key.
            health: Health that the client reports to; a new one by default.
            stop_call: Stops sessions; by default the client.
        """
        self.spec = spec
        self.rest = rest
        self.health = health or AccountHealth(config.health, spec.state)
        self.stopper = Stopper(config.stop, stop_call or rest)
        self.keep_alives = RestKeepAlives(rest, rest.metrics)
        self.active = ActiveSessions(rest)
        self._session_ids: set[str] = set()

    @property
    def name(self) -> str:
        """Name for people."""
        return self.spec.name

    @property
    def id(self) -> str:
        """Name of the account in the registry."""
        return self.spec.id

    @property
    def session_ids(self) -> frozenset[str]:
        """LiveAvatar's ids of all sessions that this process has or is about to have."""
        return frozenset(self._session_ids)

    def add_session(self, session_id: str) -> None:
        """Record a session that this process has or is about to have."""
        self._session_ids.add(session_id)

    def remove_session(self, session_id: str) -> None:
        """Record that this process no longer has a session. Idempotent."""
        self._session_ids.discard(session_id)

    def use(self, spec: AccountSpec) -> bool:
        """Use a changed configuration from now on; return whether the key changed."""
        self.spec = spec
        self.health.decide(spec.state)
        changed = bool(spec.api_key) and self.rest.use_key(spec.api_key)
        if changed:
            self.health.renew_key()
        return changed

    def fail(self, error: GatewayError) -> None:
        """Learn from a call for a start that failed."""
        before = self.health.trouble(time.monotonic())
        self.health.fail(error, time.monotonic())
        after = self.health.trouble(time.monotonic())
        if after is not before and after is not None:
            _log.warning("account.trouble", account=self.name, trouble=after.value, reason=error.reason)

    def succeed(self) -> None:
        """Learn from a start that succeeded."""
        if self.health.error is not None or is_doubtful(self.health):
            _log.info("account.works", account=self.name)
        self.health.succeed()

    def refuse_key(self, error: GatewayError) -> None:
        """Set the account aside: LiveAvatar refuses its key."""
        if not self.health.has_bad_key:
            self.health.refuse_key(error)
            _log.error("account.set_aside", account=self.name, reason=error.reason)

    @contextlib.contextmanager
    def checked_key(self) -> Iterator[None]:
        """Set the account aside if LiveAvatar refuses the key of the calls within, and it is still in use then."""
        key = self.spec.api_key
        try:
            yield
        except UpstreamUnauthenticated as error:
            if self.spec.api_key == key:
                self.refuse_key(error)
            raise

    def candidate(self, free_share: float) -> Candidate:
        """Return the account as its rivals are compared with it."""
        return Candidate(
            name=self.id,
            cost=self.spec.cost,
            free_share=free_share,
            is_poor=self.health.seems_poor(),
            is_doubtful=is_doubtful(self.health),
        )

    def refusal(self, now_s: float, *, sandbox: bool) -> GatewayError:
        """Return the error for a caller whom the account cannot serve at present; see `AccountHealth.trouble`."""
        retry_s = self.health.retry_in_s(now_s, sandbox=sandbox) or 0.0
        match self.health.trouble(now_s, sandbox=sandbox):
            case Trouble.KEY_REFUSED:
                return UpstreamUnauthenticated(
                    "LiveAvatar refuses the gateway's API key, which is not used again until it changes; check "
                    "LIVEAVATAR_API_KEY, or the key in the file of accounts"
                )
            case Trouble.NO_CREDITS:
                return UpstreamCreditsExhausted("LiveAvatar reports that the account's credits are used up")
            case Trouble.RATE_LIMITED:
                return UpstreamRateLimited("LiveAvatar's rate limit is reached", retry_after_s=max(retry_s, 0.1))
            case Trouble.PAUSED | Trouble.DRAINING | Trouble.RETIRED:
                return CapacityExhausted(
                    "the operator has paused or drains the accounts on which this session could start",
                    scope="upstream_account",
                    retry_after_s=_PAUSED_RETRY_S,
                )
            case _:
                return self._unreachable(retry_s)

    def _unreachable(self, retry_s: float) -> GatewayError:
        cause = self.health.error
        kind = UpstreamUnreachable if cause is None else type(cause)
        said = "" if cause is None else f": {cause.message}"
        return kind(
            f"LiveAvatar failed repeatedly and is tried again in {retry_s:.1f} s{said}",
            retry_after_s=max(retry_s, 0.1),
        )

    async def remote_status(self, session_id: str) -> RemoteStatus:
        """Return LiveAvatar's record of a session; not over if LiveAvatar does not answer in time."""
        try:
            async with asyncio.timeout(_STATUS_TIMEOUT_S):
                return await self.rest.remote_status(session_id)
        except (GatewayError, TimeoutError):
            _log.info("upstream.status_unknown", upstream_session=session_id)
            return RemoteStatus(over=False)


def open_account(
    spec: AccountSpec,
    config: AccountConfig,
    make_rest: Callable[[str, AccountHealth], Rest],
    *,
    make_stop_call: Callable[[Rest], StopCall] | None = None,
) -> Account:
    """Return an account with a REST client of its own, which reports to the account's health."""
    health = AccountHealth(config.health, spec.state)
    rest = make_rest(spec.api_key, health)
    stop_call = None if make_stop_call is None else make_stop_call(rest)
    return Account(spec, config, rest, health=health, stop_call=stop_call)
