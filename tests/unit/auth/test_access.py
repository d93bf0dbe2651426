"""Access control of a process: with a file of tenants, which is reloaded, or without one."""

import asyncio

import pytest

from liveavatar_gateway.auth.access import Access, AccessConfig
from liveavatar_gateway.auth.auth_file import UnusableAuthFile
from liveavatar_gateway.auth.open_calls import OpenCall
from liveavatar_gateway.auth.principal import ANONYMOUS, Method, Principal
from liveavatar_gateway.core.errors import CredentialMissing, TenantSuspended
from liveavatar_gateway.reloading import FileReloads


async def test_without_a_file_every_caller_is_the_same_and_has_no_limits():
    access, reloads = Access(AccessConfig()), FileReloads()
    access.add_to(reloads)
    principal = await access.authenticator.authenticate([("authorization", "Bearer x")])
    assert principal is ANONYMOUS
    access.authenticator.check(principal)
    assert access.authenticator.is_active("anything")
    assert access.limiter.quotas("") is None
    await reloads.reload()
    await access.aclose()


def test_an_unusable_file_is_refused_at_the_start(tmp_path):
    file = tmp_path / "tenants.toml"
    file.write_text("[tenants.acme]\nquotas = 3\n")
    with pytest.raises(UnusableAuthFile, match=r"tenants\.acme\.quotas"):
        Access(AccessConfig(file=file))


async def test_a_changed_file_counts_for_quotas_and_open_calls(tmp_path):
    file = tmp_path / "tenants.toml"
    file.write_text("[tenants.acme.quotas]\nmax_sessions = 3\n")
    access, reloads = Access(AccessConfig(file=file)), FileReloads()
    access.add_to(reloads)
    assert access.limiter.quotas("acme").max_sessions == 3
    with pytest.raises(CredentialMissing):
        await access.authenticator.authenticate([])
    cancelled = asyncio.Event()
    principal = Principal(tenant="acme", roles=frozenset(), method=Method.TOKEN, credential="t", expires_at=None)
    call = OpenCall(principal, cancelled.set)
    access.open_calls.add(call)
    await reloads.reload()
    assert call.error is None
    file.write_text("[tenants.acme]\nsuspended = true\n")
    await reloads.reload()
    assert isinstance(call.error, TenantSuspended)
    assert cancelled.is_set()
    assert not access.authenticator.is_active("acme")
    assert access.authenticator.is_active(""), "anonymous sessions of before end by their own grace"
    await access.aclose()


@pytest.mark.parametrize("text", ["", "# Cut off behind this line.\n"])
async def test_a_file_that_was_emptied_takes_no_tenant_away(tmp_path, text):
    file = tmp_path / "tenants.toml"
    file.write_text("[tenants.acme]\n")
    access, reloads = Access(AccessConfig(file=file)), FileReloads()
    access.add_to(reloads)
    file.write_text(text)
    await reloads.reload()
    assert access.authenticator.is_active("acme")
    file.write_text("[tenants.beta]\n")
    await reloads.reload()
    assert not access.authenticator.is_active("acme")
    await access.aclose()


async def test_budgets_without_a_registry_are_refused_at_the_start_and_at_a_reload(tmp_path):
    file = tmp_path / "tenants.toml"
    file.write_text("[tenants.acme]\n")
    access, reloads = Access(AccessConfig(file=file, has_registry=False)), FileReloads()
    access.add_to(reloads)
    file.write_text("[tenants.acme.budget]\nminutes_per_day = 3\n")
    await reloads.reload()
    assert not access.authenticator.budget("acme").is_limited
    await access.aclose()
    with pytest.raises(UnusableAuthFile, match="GATEWAY_REGISTRY_FILE"):
        Access(AccessConfig(file=file, has_registry=False))


async def test_a_changed_budget_counts_at_once(tmp_path):
    file = tmp_path / "tenants.toml"
    file.write_text("[tenants.acme]\n")
    access, reloads = Access(AccessConfig(file=file)), FileReloads()
    access.add_to(reloads)
    file.write_text("[tenants.acme.budget]\nminutes_per_day = 3\n")
    await reloads.reload()
    assert access.authenticator.budget("acme").minutes_per_day == 3
    await access.aclose()
