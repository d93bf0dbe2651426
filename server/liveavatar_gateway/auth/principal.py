"""Identity of a caller, and the roles that each RPC needs."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Final

from liveavatar_gateway.core.errors import RoleMissing


class Role(StrEnum):
    """Right of a credential. No role includes another one."""

    OPEN = "open"
    """Create sessions, which spends money."""
    SPEAK = "speak"
    """Send audio for the avatar to speak."""
    LISTEN = "listen"
    """Hear the users of a session: the most private role."""
    CONTROL = "control"
    """Attach to sessions, pause, interrupt and end them."""
    WATCH = "watch"
    """List sessions and follow their events."""
    ADMIN = "admin"
    """Operate the gateway, across all tenants."""


class Method(StrEnum):
    """Kind of credential."""

    API_KEY = "api_key"
    TOKEN = "token"  # noqa: S105 - a kind, no secret
    CERTIFICATE = "certificate"
    NONE = "none"
    """No credential, where the gateway asks for none."""


Rule = frozenset[Role]
"""Roles of which any suffices."""

ANY_ROLE: Final[Rule] = frozenset(Role)

EXEMPT: Final = frozenset({"grpc.health.v1.Health"})
"""Services that need no credential."""

_SESSIONS: Final = "liveavatar.gateway.v1.SessionService"
_AUDIO: Final = "liveavatar.gateway.v1.AudioService"
_ADMIN: Final = "liveavatar.gateway.v1.AdminService"

RULES: Final[Mapping[str, Rule]] = {
    f"{_SESSIONS}/Attach": frozenset({Role.OPEN, Role.CONTROL}),
    f"{_SESSIONS}/CreateSession": frozenset({Role.OPEN}),
    f"{_SESSIONS}/PrepareSession": frozenset({Role.OPEN}),
    f"{_SESSIONS}/GetSession": frozenset({Role.OPEN, Role.CONTROL, Role.WATCH}),
    f"{_SESSIONS}/ListSessions": frozenset({Role.WATCH}),
    f"{_SESSIONS}/EndSession": frozenset({Role.CONTROL}),
    f"{_SESSIONS}/WatchSessions": frozenset({Role.WATCH}),
    f"{_SESSIONS}/InterruptSession": frozenset({Role.CONTROL}),
    f"{_SESSIONS}/CreateViewerTokens": frozenset({Role.CONTROL}),
    f"{_SESSIONS}/RemoveViewer": frozenset({Role.CONTROL}),
    f"{_SESSIONS}/PauseSession": frozenset({Role.CONTROL}),
    f"{_SESSIONS}/ContinueSession": frozenset({Role.CONTROL}),
    f"{_SESSIONS}/ListAvatars": frozenset({Role.OPEN, Role.WATCH}),
    f"{_SESSIONS}/GetServerInfo": ANY_ROLE,
    f"{_AUDIO}/StreamAudio": frozenset({Role.SPEAK}),
    f"{_AUDIO}/ListenAudio": frozenset({Role.LISTEN}),
    f"{_ADMIN}/Drain": frozenset({Role.ADMIN}),
    f"{_ADMIN}/Undrain": frozenset({Role.ADMIN}),
    f"{_ADMIN}/GetProcessStatus": frozenset({Role.ADMIN}),
    f"{_ADMIN}/ListOwnedSessions": frozenset({Role.ADMIN}),
    f"{_ADMIN}/EjectSession": frozenset({Role.ADMIN}),
    f"{_ADMIN}/GetUsage": frozenset({Role.ADMIN}),
    f"{_ADMIN}/GetPool": frozenset({Role.ADMIN}),
    f"{_ADMIN}/PauseAccount": frozenset({Role.ADMIN}),
    f"{_ADMIN}/ResumeAccount": frozenset({Role.ADMIN}),
    f"{_ADMIN}/DrainAccount": frozenset({Role.ADMIN}),
    f"{_ADMIN}/SetAccountLimit": frozenset({Role.ADMIN}),
    f"{_ADMIN}/ReloadPool": frozenset({Role.ADMIN}),
    "grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo": ANY_ROLE,
}
"""Rule of each RPC, by `service/method`. A test compares it with proto/; an RPC without a rule is refused."""

MESSAGE_RULES: Final[Mapping[str, Rule]] = {
    "open": frozenset({Role.OPEN}),
    "resume": frozenset({Role.CONTROL}),
    "command": frozenset({Role.CONTROL}),
    "heartbeat": ANY_ROLE,
}
"""Rule of each message of `AttachRequest`, since `Attach` both creates and controls sessions."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Principal:
    """Caller whose credential was verified."""

    tenant: str
    roles: frozenset[Role]
    method: Method
    credential: str
    """Name of the credential, for logs: id of a key, issuer and subject of a token, or name of a certificate."""
    expires_at: datetime | None
    """End of the credential's validity; None for a credential that ends only when it is revoked."""
    grounds: tuple[str, ...] = field(default=(), repr=False)
    """Digest of the key, names in the certificate, or issuer of the token: the file must still have them."""

    def require(self, rule: Rule, what: str) -> None:
        """Refuse a call or message that none of the roles includes.

        Args:
            rule: Roles of which any suffices.
            what: Method or message, for the error.

        Raises:
            RoleMissing: the principal has none of the roles.
        """
        if not self.roles & rule:
            raise RoleMissing(what, " or ".join(sorted(rule)) or "of no caller")


ANONYMOUS: Final = Principal(tenant="", roles=frozenset(Role), method=Method.NONE, credential="", expires_at=None)
"""Every caller of a gateway that asks for no credential."""


def is_exempt(method: str) -> bool:
    """Return True for a method, `service/method`, that needs no credential."""
    return method.partition("/")[0] in EXEMPT


def rule_of(method: str) -> Rule:
    """Return the rule of a method, `service/method`; without an entry in the table, no role suffices."""
    return RULES.get(method, frozenset())
