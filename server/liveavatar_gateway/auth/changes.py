"""Changes between two contents of the file of tenants, for the audit log."""

from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeVar

from liveavatar_gateway.auth.auth_file import AuthConfig, Tenant
from liveavatar_gateway.telemetry.audit import OK, AuditLog

_Name = TypeVar("_Name", bound=Hashable)


@dataclass(frozen=True, slots=True)
class Change:
    """Change of one tenant, credential or issuer, without any secret."""

    event: str
    """Thing and act, such as `key.revoked`."""
    tenant: str = ""
    """Tenant of the credential; empty for an issuer."""
    name: str = ""
    """Id of the key, name of the certificate, or issuer; empty for a tenant."""


def changes(before: AuthConfig, after: AuthConfig) -> list[Change]:
    """Return the changes that lead from one content to the other."""
    return [
        *_of_tenants(before, after),
        *_of_keys(before, after),
        *(
            Change(event, tenant, name)
            for event, (tenant, name) in _compared("certificate", _certificates(before), _certificates(after))
        ),
        *(
            Change(event, name=name)
            for event, name in _compared(
                "issuer",
                {issuer.issuer: issuer for issuer in before.issuers},
                {issuer.issuer: issuer for issuer in after.issuers},
            )
        ),
    ]


def audit_changes(log: AuditLog, before: AuthConfig, after: AuthConfig) -> None:
    """Write a line about each change to the audit log."""
    for change in changes(before, after):
        fields = {"tenant": change.tenant, "name": change.name}
        log.write(change.event, OK, fields)


def _of_tenants(before: AuthConfig, after: AuthConfig) -> Iterator[Change]:
    limits_before, limits_after = (
        {
            name: (tenant.quotas, tenant.budget, tenant.rooms, tenant.pool, tenant.avatars)
            for name, tenant in config.tenants.items()
        }
        for config in (before, after)
    )
    yield from (Change(event, name) for event, name in _compared("tenant", limits_before, limits_after))
    for name, tenant in after.tenants.items():
        was_suspended = before.tenants.get(name, Tenant()).suspended
        if tenant.suspended != was_suspended:
            yield Change("tenant.suspended" if tenant.suspended else "tenant.resumed", name)


def _of_keys(before: AuthConfig, after: AuthConfig) -> Iterator[Change]:
    keys_before, keys_after = (
        {(name, key.id): key for name, tenant in config.tenants.items() for key in tenant.keys}
        for config in (before, after)
    )
    for event, (tenant, key_id) in _compared("key", keys_before, keys_after):
        old, new = keys_before.get((tenant, key_id)), keys_after.get((tenant, key_id))
        is_revoked = new is not None and new.revoked is not None and (old is None or old.revoked is None)
        yield Change("key.revoked" if is_revoked else event, tenant, key_id)


def _certificates(config: AuthConfig) -> Mapping[tuple[str, str], object]:
    return {(name, entry.name): entry for name, tenant in config.tenants.items() for entry in tenant.certificates}


def _compared(
    thing: str, before: Mapping[_Name, object], after: Mapping[_Name, object]
) -> Iterator[tuple[str, _Name]]:
    """Yield the event and the name of each entry that was added, removed or changed."""
    for name in after:
        if name not in before:
            yield f"{thing}.added", name
        elif after[name] != before[name]:
            yield f"{thing}.changed", name
    for name in before:
        if name not in after:
            yield f"{thing}.removed", name
