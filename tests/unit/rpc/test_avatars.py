"""Avatars of a tenant: those that the operator allows, in lists and in specs; pages have no holes."""

import contextvars

import pytest

from liveavatar_gateway.auth.open_calls import OpenCall
from liveavatar_gateway.auth.principal import Method, Principal, Role
from liveavatar_gateway.core.errors import AvatarNotAllowed, InvalidField
from liveavatar_gateway.rpc import avatars
from liveavatar_gateway.rpc.interceptors.authentication import set_current_call
from liveavatar_gateway.sessions.spec import SessionSpec
from liveavatar_gateway.upstream.avatars import Avatar
from liveavatar_gateway.upstream.model import AvatarRequest

ADA = "0b1e6a52-6f0c-4f5e-9a51-3f3f2b6f1c11"
GRACE = "3c2f8a10-9b7d-4c6e-8f5a-1d2e3c4b5a69"
LISTED = [Avatar(id=GRACE, name="grace"), Avatar(id=ADA, name="Ada")]


def as_tenant(allowed, call):
    """Call as a tenant with these allowed avatars."""
    caller = Principal(
        tenant="acme",
        roles=frozenset(Role),
        method=Method.API_KEY,
        credential="k1",
        expires_at=None,
        avatars=None if allowed is None else frozenset(allowed),
    )

    def within():
        set_current_call(OpenCall(caller, lambda: None))
        return call()

    return contextvars.copy_context().run(within)


def spec(avatar_id):
    return SessionSpec(avatar=AvatarRequest(avatar_id=avatar_id), detach_grace_s=30)


@pytest.mark.parametrize(
    ("allowed", "names"), [(None, ["Ada", "grace"]), ([GRACE, "unknown"], ["grace"]), ([], [])]
)
def test_a_tenant_is_listed_its_avatars_by_name(allowed, names):
    assert [avatar.name for avatar in as_tenant(allowed, lambda: avatars.allowed(LISTED))] == names


def test_without_authentication_all_avatars_are_allowed():
    assert [avatar.name for avatar in avatars.allowed(LISTED)] == ["Ada", "grace"]
    avatars.require_allowed(spec(ADA), field="spec")


def test_a_spec_with_another_avatar_is_refused():
    as_tenant(None, lambda: avatars.require_allowed(spec(ADA), field="spec"))
    as_tenant([ADA], lambda: avatars.require_allowed(spec(ADA), field="spec"))
    with pytest.raises(AvatarNotAllowed) as refused:
        as_tenant([ADA], lambda: avatars.require_allowed(spec(GRACE), field="open.spec"))
    assert refused.value.field == "open.spec.avatar_id"
    assert refused.value.metadata == {"avatar_id": GRACE, "tenant": "acme"}


def pages(listed, size):
    found, token = [], ""
    while True:
        entries, token = avatars.page(listed, token, size)
        found.append([avatar.id for avatar in entries])
        if not token:
            return found


def test_pages_have_every_avatar_once_in_order():
    listed = avatars.allowed(Avatar(id=str(n), name=f"ß{n // 2}") for n in range(7))
    assert pages(listed, 3) == [["0", "1", "2"], ["3", "4", "5"], ["6"]]
    assert pages(listed, 7) == [["0", "1", "2", "3", "4", "5", "6"]]
    assert pages([], 3) == [[]]


def test_a_token_stays_valid_when_its_avatar_is_gone():
    listed = avatars.allowed(Avatar(id=str(n), name="same") for n in range(5))
    _, token = avatars.page(listed, "", 2)
    assert [avatar.id for avatar in avatars.page([listed[0], *listed[3:]], token, 2)[0]] == ["3", "4"]
    assert avatars.page(listed[:1], token, 2) == ([], "")


@pytest.mark.parametrize("token", ["nonsense!", "AAA", "bm9uc2Vuc2U=", "/w==", "ä", "A" * 4000])
def test_a_token_that_is_none_is_refused(token):
    with pytest.raises(InvalidField) as refused:
        avatars.page([], token, 2)
    assert refused.value.field == "page_token"
