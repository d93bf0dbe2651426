"""LiveAvatar's lists of avatars: sessions can use what they offer, and what is wrong in them goes no further."""

import pytest

from liveavatar_gateway.upstream.avatars import SANDBOX_AVATAR_ID, Avatar, usable, with_sandbox

ADA = "0b1e6a52-6f0c-4f5e-9a51-3f3f2b6f1c11"
GRACE = "3c2f8a10-9b7d-4c6e-8f5a-1d2e3c4b5a69"


def entry(avatar_id: str = ADA, **more: object) -> dict[str, object]:
    return {
        "id": avatar_id,
        "name": "Ada",
        "status": "ACTIVE",
        "is_expired": False,
        "is_1080p": True,
        "preview_url": "https://pictures.example/ada.webp?signature=x",
    } | more


def test_an_active_avatar_is_usable():
    assert usable([entry(ADA.upper())]) == [
        Avatar(id=ADA, name="Ada", preview_url="https://pictures.example/ada.webp?signature=x", is_1080p=True)
    ]


@pytest.mark.parametrize(
    "broken",
    [
        entry(status="DEPLOYING"),
        entry(status=None),
        entry(is_expired=True),
        entry("../sessions"),
        entry(id=7),
        entry(id=None),
        "text",
        None,
        [],
    ],
)
def test_an_entry_that_no_session_can_use_is_left_out(broken):
    assert usable([broken]) == []


@pytest.mark.parametrize(
    "preview_url",
    [
        None,
        7,
        "",
        "javascript:alert(1)",
        "ftp://pictures.example/a",
        "https://",
        "https://[",
        "https://a/ b",
        "https://a/\n",
        "https://ä.example/",
        "https://a/" + "x" * 2048,
        "http://pictures.example/a",
        "https://user:pass@pictures.example/a",
        "https://pictures.example\\@evil.example/a",
        "https://127.0.0.1/a",
        "https://169.254.169.254/a",
        'https://pictures.example/"onload="alert(1)',
    ],
)
def test_a_preview_that_is_no_web_address_is_empty(preview_url):
    assert usable([entry(preview_url=preview_url)])[0].preview_url == ""


def test_a_name_is_bounded_and_an_avatar_without_one_is_named_like_its_id():
    assert len(usable([entry(name="ä" * 500)])[0].name.encode()) <= 200
    assert [found.name for found in usable([entry(name=""), entry(name=None)])] == [ADA, ADA]
    assert usable([entry(name="half \ud800")])[0].name == "half ?"


@pytest.mark.parametrize("is_1080p", [None, "true", 1])
def test_only_true_means_1080p(is_1080p):
    assert usable([entry(is_1080p=is_1080p)])[0].is_1080p is False


def test_the_sandbox_avatar_is_added_and_marked():
    found = with_sandbox(usable([entry()]))
    assert {avatar.id: avatar.sandbox for avatar in found} == {ADA: False, SANDBOX_AVATAR_ID: True}
    assert next(avatar.name for avatar in found if avatar.sandbox) == "Wayne"


def test_a_listed_sandbox_avatar_is_marked_and_not_repeated():
    (found,) = with_sandbox(usable([entry(SANDBOX_AVATAR_ID, name="Wayne W.")]))
    assert (found.name, found.sandbox, found.is_1080p) == ("Wayne W.", True, True)


def test_of_two_entries_with_the_same_id_the_first_counts():
    found = with_sandbox(usable([entry(GRACE, name="own"), entry(GRACE, name="public")]))
    assert [avatar.name for avatar in found if avatar.id == GRACE] == ["own"]
