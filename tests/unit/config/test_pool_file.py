"""The file of accounts: read whole with its keys, and a mistake is named with file, place and cause."""

import pytest

from liveavatar_gateway.config.pool_file import MAX_BYTES, UnusablePoolFile, parse, read
from liveavatar_gateway.pool.account_health import AccountState
from testkit.accounts import AccountsFile

AVATAR = "0b1e6a52-6f0c-4f5e-9a51-3f3f2b6f1c11"
KEY = 'api_key_file = "/run/secrets/main"\n'


def refusal(text: str) -> str:
    with pytest.raises(UnusablePoolFile) as refused:
        parse(text.encode())
    return str(refused.value)


def refused(path) -> str:
    with pytest.raises(UnusablePoolFile) as problem:
        read(path)
    return str(problem.value)


@pytest.fixture
def file(tmp_path) -> AccountsFile:
    return AccountsFile(tmp_path)


def test_a_whole_file_is_read_with_its_keys(file):
    spare = {
        "key": "k-2",
        "max_sessions": 5,
        "cost": 2,
        "avatars": [AVATAR],
        "tenants": ["acme"],
        "state": "paused",
    }
    path = file.write({"main": {"key": "k-1", "max_sessions": 25}, "spare": spare})
    found = read(path)
    main, spare = found.accounts["main"], found.accounts["spare"]
    assert (main.api_key, main.max_sessions, main.cost, main.avatars, main.tenants) == ("k-1", 25, 1.0, None, None)
    assert (spare.api_key, spare.cost, spare.avatars, spare.tenants) == ("k-2", 2.0, (AVATAR,), ("acme",))
    assert (main.state, spare.state) == (AccountState.ACTIVE, AccountState.PAUSED)
    assert (found.max_sessions, list(found.key_files)) == (30, [file.key_path("main"), file.key_path("spare")])
    assert "k-1" not in repr(found)


def test_a_new_key_is_another_content(file):
    before = read(file.write({"main": {"key": "k-1"}}))
    file.write_key("main", "k-2")
    assert read(file.path) != before


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "accounts: is missing"),
        ("[accounts]", "accounts: Dictionary should have at least 1 item"),
        ("[accounts", "is not TOML"),
        ("[account.main]", "account: unknown key; did you mean accounts?"),
        (
            f"[accounts.main]\n{KEY}max_session = 5",
            "accounts.main.max_session: unknown key; did you mean max_sessions?",
        ),
        (f"[accounts.main]\n{KEY}", "accounts.main.max_sessions: is missing"),
        ("[accounts.main]\nmax_sessions = 5", "accounts.main.api_key_file: is missing"),
        (f"[accounts.main]\n{KEY}max_sessions = 0", "accounts.main.max_sessions: Input should be greater"),
        (
            f'[accounts.main]\n{KEY}max_sessions = "5"',
            "accounts.main.max_sessions: Input should be a valid integer",
        ),
        (f"[accounts.main]\n{KEY}max_sessions = 5\ncost = -1", "accounts.main.cost: Input should be greater"),
        (f"[accounts.main]\n{KEY}max_sessions = 5\ncost = nan", "accounts.main.cost: Input should be"),
        (
            f'[accounts.main]\n{KEY}max_sessions = 5\nstate = "off"',
            "accounts.main.state: Input should be 'active'",
        ),
        (f'[accounts.main]\n{KEY}max_sessions = 5\navatars = ["x"]', "accounts.main.avatars[0]: does not match"),
        (f'[accounts.main]\n{KEY}max_sessions = 5\ntenants = ["X"]', "accounts.main.tenants[0]: does not match"),
        (f"[accounts.Main]\n{KEY}max_sessions = 5", "accounts.Main: does not match"),
        (
            '[accounts.main]\napi_key_file = "key"\nmax_sessions = 5',
            "accounts.main: api_key_file is not an absolute",
        ),
    ],
)
def test_a_mistake_is_named_with_its_place_and_cause(text, said):
    assert said in refusal(text)


def test_a_mistake_names_setting_and_file(file):
    path = file.write({"main": {"max_sessions": 0}})
    assert refused(path).startswith(f"GATEWAY_POOL_FILE: {path}: accounts.main.max_sessions: ")


def test_a_key_that_cannot_be_used_is_named_and_never_shown(file, tmp_path):
    path = file.write({"main": {"key": "k-1"}, "spare": {"key": "k-1"}})
    assert refused(path).endswith("accounts.spare has the same key as accounts.main")
    place = f"GATEWAY_POOL_FILE: {path}: accounts.spare.api_key_file: {file.key_path('spare')}"
    for key, said in [("", " is empty"), ("a key", ": character 2"), ("'quoted'", ": the value is in quotes")]:
        file.write_key("spare", key)
        assert refused(path).startswith(place + said)
        assert "quoted" not in refused(path)
    file.write_key("spare", "k-2")
    file.key_path("spare").chmod(0o644)
    assert "can be read by other users" in refused(path)
    file.key_path("spare").unlink()
    assert refused(path) == f"{place} cannot be read: No such file or directory"


def test_a_file_that_others_can_write_or_that_is_too_large_is_refused(file):
    path = file.write({"main": {}})
    path.chmod(0o666)
    assert "can be changed by other users" in refused(path)
    path.chmod(0o600)
    path.write_bytes(b"#" * (MAX_BYTES + 1))
    assert refused(path).endswith(f"is larger than {MAX_BYTES} bytes")
    path.unlink()
    assert refused(path).endswith("cannot be read: No such file or directory")


ACCOUNT = f"[accounts.main]\n{KEY}max_sessions = 5\n"
PROFILE = f'[profiles.desk]\navatar_id = "{AVATAR}"\nmin = 2\n'


def test_a_profile_of_warm_sessions_is_read():
    found = parse(f"{ACCOUNT}{PROFILE}max_idle_s = 120\nhours = ['07:00-19:00']".encode()).profiles["desk"]
    assert (found.avatar_id, found.min, found.max_idle_s, found.hours) == (AVATAR, 2, 120.0, ("07:00-19:00",))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (f"{ACCOUNT}{PROFILE}max_idel_s = 1", "profiles.desk.max_idel_s: unknown key; did you mean max_idle_s?"),
        (
            f'{ACCOUNT}{PROFILE}livekit_room = "a"',
            "profiles.desk: sessions in rooms of the callers' own",
        ),
        (f'{ACCOUNT}{PROFILE}account = "spare"', "profiles.desk names the account 'spare', which"),
        (f"{ACCOUNT}avatars = []\n{PROFILE}", "profiles.desk has no account that allows its avatar"),
        (f'{ACCOUNT}tenants = ["acme"]\n{PROFILE}', "profiles.desk has no account that allows its avatar"),
        (
            f'{ACCOUNT}tenants = ["acme"]\n{PROFILE}tenants = ["acme"]\npayer = "beta"',
            "profiles.desk has no account",
        ),
        (f'{ACCOUNT}[profiles.Desk]\navatar_id = "{AVATAR}"\nmin = 2', "profiles.Desk: does not match"),
    ],
)
def test_a_profile_that_could_not_be_kept_is_refused(text, said):
    assert said in refusal(text)


def test_a_profile_may_run_on_an_account_of_its_tenants():
    text = f'{ACCOUNT}tenants = ["acme", "beta"]\n{PROFILE}tenants = ["acme"]'
    assert parse(text.encode()).profiles["desk"].paying_tenant == "acme"


@pytest.mark.parametrize(
    ("profile", "said"),
    [
        ("", "profiles.desk has no payer"),
        ('payer = "acem"', "profiles.desk names the tenant 'acem', which GATEWAY_AUTH_FILE does not have"),
        ('payer = "acme"\ntenants = ["acme", "bta"]', "profiles.desk names the tenant 'bta'"),
    ],
)
def test_with_a_file_of_tenants_a_profile_has_a_payer_and_tenants_of_that_file(file, profile, said):
    path = file.write({"main": {"key": "k-1"}}, f'[profiles.desk]\navatar_id = "{AVATAR}"\nmin = 1\n{profile}')
    assert read(path).profiles
    with pytest.raises(UnusablePoolFile) as problem:
        read(path, tenants=["acme", "beta"])
    assert str(problem.value).startswith(f"GATEWAY_POOL_FILE: {path}: {said}")


def test_a_profile_of_known_tenants_is_read(file):
    profile = f'[profiles.desk]\navatar_id = "{AVATAR}"\nmin = 1\npayer = "acme"\ntenants = ["beta"]'
    assert read(file.write({"main": {"key": "k-1"}}, profile), tenants=["acme", "beta"]).profiles
