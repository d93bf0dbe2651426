"""Pages of avatars have no holes, and survive a change of the list."""

import pytest

from liveavatar_gateway.core.errors import InvalidField
from liveavatar_gateway.rpc import avatars
from liveavatar_gateway.upstream.avatars import Avatar


def pages(listed, size):
    found, token = [], ""
    while True:
        entries, token = avatars.page(listed, token, size)
        found.append([avatar.id for avatar in entries])
        if not token:
            return found


def test_pages_have_every_avatar_once_by_name():
    listed = [Avatar(id=str(n), name=f"ß{n // 2}") for n in reversed(range(7))]
    assert pages(listed, 3) == [["0", "1", "2"], ["3", "4", "5"], ["6"]]
    assert pages(listed, 7) == [["0", "1", "2", "3", "4", "5", "6"]]
    assert pages([], 3) == [[]]
    assert pages([Avatar(id="1", name="grace"), Avatar(id="2", name="Ada")], 3) == [["2", "1"]]


def test_a_token_stays_valid_when_its_avatar_is_gone():
    listed = [Avatar(id=str(n), name="same") for n in range(5)]
    _, token = avatars.page(listed, "", 2)
    assert [avatar.id for avatar in avatars.page([listed[0], *listed[3:]], token, 2)[0]] == ["3", "4"]
    assert avatars.page(listed[:1], token, 2) == ([], "")


@pytest.mark.parametrize("token", ["nonsense!", "AAA", "bm9uc2Vuc2U=", "/w==", "ä", "A" * 4000])
def test_a_token_that_is_none_is_refused(token):
    with pytest.raises(InvalidField) as refused:
        avatars.page([], token, 2)
    assert refused.value.field == "page_token"
