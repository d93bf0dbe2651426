"""Changes of the file of tenants: comments stay, what is not understood is left alone, readers see whole files."""

import os
import stat
import tomllib
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest

from liveavatar_gateway.auth import keys
from liveavatar_gateway.auth.auth_file import UnusableAuthFile, parse
from liveavatar_gateway.auth.editing import EditRefused, add_key, edit, revoke_key
from liveavatar_gateway.auth.principal import Role

NOW = datetime(2026, 11, 30, 12, tzinfo=UTC)
ROLES = (Role.OPEN, Role.SPEAK)


def added(text: str, tenant: str = "acme", key: keys.ApiKey | None = None, **more: object) -> str:
    return add_key(text, tenant, key or keys.generate(), roles=ROLES, created=NOW, **more)


class TestAdd:
    def test_a_key_is_added_with_its_digest_alone(self):
        key = keys.generate()
        text = added("", key=key, expires=NOW + timedelta(days=90), note='the "agent"\n\\')
        tenant, entry = parse(text.encode(), now=NOW).key(key.key_id)
        assert tenant == "acme"
        assert keys.matches(key, entry)
        assert (entry.roles, entry.created, entry.expires) == (set(ROLES), NOW, NOW + timedelta(days=90))
        assert entry.note == 'the "agent"\n\\'
        assert key.text not in text

    @pytest.mark.parametrize(
        "text",
        [
            "# first\n[tenants.acme] # mine\nsuspended = false\n",
            "[tenants.acme.quotas]\nmax_sessions = 3",
            "[tenants.beta]\n\n\n",
            "[tenants.acme]\r\nsuspended = true\r\n",
        ],
    )
    def test_the_rest_of_the_file_stays_as_it_is(self, text):
        changed = added(text)
        assert changed.startswith(text)
        assert ("\r\n" in changed) == ("\r\n" in text)
        assert changed.count("\n") == changed.count("\r\n") or "\r\n" not in changed

    def test_a_third_active_key_is_refused(self):
        text = added(added(""))
        with pytest.raises(EditRefused, match="has 2 active keys already; revoke one"):
            added(text)
        assert added(text, "beta")

    def test_a_revoked_key_makes_room_for_another(self):
        first = keys.generate()
        text = added(added("", key=first))
        assert len(parse(added(revoke_key(text, first.key_id, NOW)).encode()).tenants["acme"].keys) == 3

    @pytest.mark.parametrize("text", ["tenants = { acme = {} }", "[tenants]\nacme = { keys = [] }"])
    def test_a_file_written_in_another_way_is_left_alone(self, text):
        with pytest.raises(EditRefused, match=r"by hand, as `\[\[\.\.\.\]\]` tables"):
            added(text)

    @pytest.mark.parametrize("text", ["tenants = 1", "[tenants"])
    def test_an_invalid_file_is_left_alone(self, text):
        with pytest.raises(UnusableAuthFile):
            added(text)

    def test_a_change_that_would_make_the_file_invalid_is_refused(self):
        with pytest.raises(UnusableAuthFile, match="note"):
            added("", note="x" * 201)


class TestRevoke:
    def test_a_key_is_revoked_and_nothing_else_changes(self):
        first, second = keys.generate(), keys.generate()
        text = added(added("# mine\n", key=first), key=second) + "# end"
        changed = revoke_key(text, first.key_id, NOW)
        config = parse(changed.encode(), now=NOW)
        assert config.key(first.key_id)[1].revoked == NOW
        assert config.key(second.key_id)[1].revoked is None
        assert [line for line in changed.splitlines() if line not in text.splitlines()] == [
            "revoked = 2026-11-30T12:00:00Z"
        ]

    def test_indentation_and_line_ends_are_those_of_the_file(self):
        key = keys.generate()
        text = added("[tenants.beta]\r\n", key=key).replace("id =", "  id =")
        assert '"\r\n  revoked = 2026-11-30T12:00:00Z\r\n' in revoke_key(text, key.key_id, NOW)

    def test_the_last_line_may_lack_its_end(self):
        key = keys.generate()
        lines = added("", key=key).splitlines()
        text = "\n".join([*(line for line in lines if not line.startswith("id")), f'id = "{key.key_id}"'])
        assert revoke_key(text, key.key_id, NOW).endswith(f'id = "{key.key_id}"\nrevoked = 2026-11-30T12:00:00Z\n')

    def test_an_unknown_key_is_refused(self):
        with pytest.raises(EditRefused, match="no key 'x' in the file"):
            revoke_key("", "x", NOW)

    def test_a_revoked_key_is_not_revoked_again(self):
        key = keys.generate()
        text = revoke_key(added("", key=key), key.key_id, NOW)
        with pytest.raises(EditRefused, match="was revoked at 2026-11-30T12:00:00"):
            revoke_key(text, key.key_id, NOW + timedelta(days=1))

    def test_an_inline_table_is_left_alone(self):
        key = keys.generate()
        values = tomllib.loads(added("", key=key))["tenants"]["acme"]["keys"][0]
        digest = values["digest"]
        inline = (
            f'{{ id = "{key.key_id}", digest = "{digest}", roles = ["open"], created = 2026-11-30T12:00:00Z }}'
        )
        with pytest.raises(EditRefused, match="is not in a table of its own; add `revoked = "):
            revoke_key(f"[tenants.acme]\nkeys = [{inline}]", key.key_id, NOW)

    def test_an_id_inside_a_text_is_not_mistaken_for_the_key(self):
        key = keys.generate()
        confusing = added("", key=key) + f'note = """\nid = "{key.key_id}"\n"""\n'
        with pytest.raises(EditRefused):
            revoke_key(confusing, key.key_id, NOW)


class TestEdit:
    def test_a_new_file_explains_itself_and_is_private(self, tmp_path):
        path = tmp_path / "auth.toml"
        edit(path, added)
        assert path.read_text().startswith("# Tenants of the gateway")
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert [entry.name for entry in tmp_path.iterdir()] == ["auth.toml"]

    def test_permissions_and_links_stay(self, tmp_path):
        target, link = tmp_path / "target.toml", tmp_path / "auth.toml"
        target.write_text("# mine\n")
        target.chmod(0o640)
        link.symlink_to(target)
        edit(link, added)
        assert link.is_symlink()
        assert stat.S_IMODE(target.stat().st_mode) == 0o640
        assert target.read_text().startswith("# mine\n")

    def test_a_file_is_replaced_at_once(self, tmp_path):
        path = tmp_path / "auth.toml"
        edit(path, added)
        with path.open() as reader:
            before = path.read_text()
            edit(path, lambda text: added(text, "beta"))
            assert reader.read() == before

    def test_a_refused_change_leaves_the_file_alone(self, tmp_path):
        path = tmp_path / "auth.toml"
        path.write_text("# mine\n")

        def refuse(_: str) -> str:
            raise EditRefused("no")

        with pytest.raises(EditRefused):
            edit(path, refuse)
        assert path.read_text() == "# mine\n"
        assert [entry.name for entry in tmp_path.iterdir()] == ["auth.toml"]

    def test_a_file_that_cannot_be_written_leaves_no_draft(self, tmp_path, monkeypatch):
        path = tmp_path / "auth.toml"
        path.write_text("# mine\n")

        def full(_: int) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(EditRefused, match="cannot be changed: No space left on device"):
            edit(path, added)
        assert [entry.name for entry in tmp_path.iterdir()] == ["auth.toml"]
        assert path.read_text() == "# mine\n"

    @pytest.mark.parametrize("content", [b"\xff", b"#" * (4 * 1024 * 1024 + 1)])
    def test_what_is_no_such_file_is_left_alone(self, tmp_path, content):
        path = tmp_path / "auth.toml"
        path.write_bytes(content)
        with pytest.raises(UnusableAuthFile):
            edit(path, added)
        assert path.read_bytes() == content

    def test_a_folder_that_does_not_exist_is_named(self, tmp_path):
        with pytest.raises(EditRefused, match=r"there is no folder .*none; create it first"):
            edit(tmp_path / "none" / "auth.toml", added)

    def test_editors_at_the_same_time_lose_nothing(self, tmp_path):
        path = tmp_path / "auth.toml"
        with ThreadPoolExecutor(3) as editors:
            list(editors.map(lambda number: edit(path, lambda text: added(text, f"t{number}")), range(6)))
        assert len(parse(path.read_bytes(), now=NOW).tenants) == 6
