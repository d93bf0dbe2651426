"""File of tenants for tests and proofs, with callers that show its credentials."""

import contextlib
import json
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import grpc

from liveavatar_gateway.auth import keys
from liveavatar_gateway.auth.principal import Role
from testkit.caller import Caller

ALL_BUT_ADMIN = tuple(role.value for role in Role if role is not Role.ADMIN)

WIDE: Mapping[str, Any] = {
    "max_sessions": 200,
    "opens_per_min": 60_000,
    "max_waiting": 1000,
    "max_streams": 1000,
    "max_watches": 100,
    "audio_bytes_per_s": 100_000_000,
    "unary_calls_per_s": 10_000.0,
    "list_calls_per_s": 1000.0,
    "max_session_s": 3600.0,
    "max_detach_grace_s": 300.0,
}
"""Quotas that no test reaches by accident."""


class TenantsFile:
    """File of tenants that a test changes; each change is on disk at once, and whole."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.content: dict[str, Any] = {"tenants": {}}
        self.write()

    def tenant(self, name: str, **values: Any) -> None:
        """Add a tenant or change it, with wide quotas unless it has others."""
        tenant = self.content["tenants"].setdefault(name, {"quotas": dict(WIDE), "keys": [], "certificates": []})
        tenant["quotas"] |= values.pop("quotas", {})
        tenant |= values
        self.write()

    def key(self, name: str, *roles: str, expires: datetime | None = None) -> str:
        """Make an API key of a tenant, with every role but admin unless others are named; return its text."""
        key = keys.generate()
        entry: dict[str, Any] = {
            "id": key.key_id,
            "digest": key.digest,
            "roles": list(roles or ALL_BUT_ADMIN),
            "created": datetime.now(UTC),
        }
        if expires is not None:
            entry["expires"] = expires
        self.content["tenants"][name]["keys"].append(entry)
        self.write()
        return key.text

    def revoke(self, name: str, text: str) -> None:
        """Revoke a key."""
        key_id = keys.parse(text).key_id
        for entry in self.content["tenants"][name]["keys"]:
            if entry["id"] == key_id:
                entry["revoked"] = datetime.now(UTC)
        self.write()

    def certificate(self, name: str, certificate_name: str, *roles: str) -> None:
        """Add a certificate of a tenant."""
        entry = {"name": certificate_name, "roles": list(roles or ALL_BUT_ADMIN)}
        self.content["tenants"][name]["certificates"].append(entry)
        self.write()

    def issuer(self, **values: Any) -> None:
        """Add an issuer of tokens."""
        self.content.setdefault("issuers", []).append(values)
        self.write()

    def write(self) -> None:
        """Replace the file."""
        draft = self.path.with_suffix(".draft")
        draft.write_text("\n".join(_toml(self.content)) + "\n")
        draft.replace(self.path)


def _toml(content: Mapping[str, Any]) -> list[str]:
    lines: list[str] = []
    for name, tenant in content["tenants"].items():
        lines.append(f"[tenants.{name}]")
        lines += [f"{key} = {_value(value)}" for key, value in tenant.items()]
    for issuer in content.get("issuers", ()):
        lines.append("[[issuers]]")
        lines += [f"{key} = {_value(value)}" for key, value in issuer.items()]
    return lines


def _value(value: Any) -> str:
    match value:
        case bool():
            return str(value).lower()
        case datetime():
            return value.isoformat()
        case Mapping():
            return "{ " + ", ".join(f"{key} = {_value(one)}" for key, one in value.items()) + " }"
        case str() | Path():
            return json.dumps(str(value))
        case Sequence():
            return "[" + ", ".join(map(_value, value)) + "]"
        case _:
            return repr(value)


class _Channel:
    """Channel whose calls show a credential."""

    def __init__(self, channel: grpc.aio.Channel, credential: Callable[[], str]) -> None:
        self._channel = channel
        self._credential = credential

    def __getattr__(self, name: str) -> Any:
        make = getattr(self._channel, name)
        if name not in ("unary_unary", "unary_stream", "stream_unary", "stream_stream"):
            return make
        return lambda *args, **options: self._with_credential(make(*args, **options))

    def _with_credential(self, method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, metadata: Sequence[tuple[str, str]] = (), **options: Any) -> Any:
            text = self._credential()
            shown = (("authorization", f"Bearer {text}"),) if text else ()
            return method(*args, metadata=(*metadata, *shown), **options)

        return call


@contextlib.asynccontextmanager
async def caller_with(
    address: str,
    credential: str | Callable[[], str] = "",
    *,
    channel_credentials: grpc.ChannelCredentials | None = None,
) -> AsyncIterator[Caller]:
    """Connect a caller that shows a key or token, the present one of a function, or none.

    Args:
        address: Address of the gateway.
        credential: Text of a key or token, or a function that returns it for each call.
        channel_credentials: TLS of the connection, perhaps with a certificate of the caller; None for plaintext.
    """
    read = credential if callable(credential) else lambda: credential
    # Each caller has connections of its own, as callers on several machines have.
    options = (("grpc.use_local_subchannel_pool", 1),)
    if channel_credentials is None:
        channel = grpc.aio.insecure_channel(address, options=options)
    else:
        channel = grpc.aio.secure_channel(address, channel_credentials, options=options)
    async with channel:
        yield Caller(_Channel(channel, read))  # type: ignore[arg-type]
