"""Stock avatars and an account's own."""

from datetime import UTC, datetime

from liveavatar_emulator import catalog


def test_stock_avatars_and_the_foreign_one_are_found():
    assert all(catalog.find(avatar["id"]) is avatar for avatar in catalog.PUBLIC_AVATARS)
    assert catalog.find(catalog.FOREIGN_AVATAR) is not None
    assert catalog.find("nobody") is None
    assert catalog.voice(catalog.VOICES[0]["id"]) is catalog.VOICES[0]
    assert catalog.voice("nobody") is None


def test_own_avatars_keep_ids_and_changes_and_lose_deleted_ones():
    own = catalog.OwnAvatars("a")
    rows = own.rows(3)
    assert rows == catalog.OwnAvatars("a").rows(3) != catalog.OwnAvatars("b").rows(3)
    assert [catalog.usable(row) for row in rows] == [True, False, False]
    changed = own.change(rows[0], name="Renamed", voice=catalog.VOICES[1], now=datetime(2026, 1, 1, tzinfo=UTC))
    assert own.find(rows[0]["id"], 1) == changed
    assert (changed["name"], changed["default_voice"]["name"]) == ("Renamed", "Deep")
    own.deleted.add(rows[0]["id"])
    assert own.find(rows[0]["id"], 3) is None
