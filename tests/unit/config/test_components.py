"""Configurations of components: each gets the values that were set."""

from liveavatar_gateway.auth.auth_file import PoolShare
from liveavatar_gateway.config import components, load, pool_file
from liveavatar_gateway.pool.account_health import AccountState
from liveavatar_gateway.pool.account_limits import AccountLimit
from liveavatar_gateway.pool.book import Book, Waiter
from liveavatar_gateway.upstream.account import AccountSpec
from testkit.accounts import AccountsFile

_SECRET = "la-secret-key-123"


def test_there_is_no_livekit_server_unless_it_is_set():
    settings = load({})
    assert components.livekit(settings) is None
    assert not components.rpc(settings).livekit_rooms


def test_a_livekit_server_is_its_url_key_and_secret(file):
    path = file(f"{_SECRET}\n", "livekit")
    settings = load(
        {
            "GATEWAY_LIVEKIT_URL": "wss://rooms.example.com",
            "GATEWAY_LIVEKIT_KEY": "APIkey",
            "GATEWAY_LIVEKIT_SECRET_FILE": str(path),
        }
    )
    livekit = components.livekit(settings)
    assert livekit is not None
    assert (livekit.url, livekit.api_key, livekit.api_secret) == ("wss://rooms.example.com", "APIkey", _SECRET)
    assert components.rpc(settings).livekit_rooms
    shown = settings.shown()
    assert (shown["livekit_key"], shown["livekit_secret"]) == ("set", "set")


def test_the_parts_get_what_was_set():
    settings = load(
        {},
        flags={
            "max_sessions": 7,
            "max_waiting": 8,
            "wait_s": 9,
            "keep_alive_s": 50,
            "api_url": "http://127.0.0.1:1",
            "rest_timeout_s": 3,
            "first_packet_s": 0.5,
            "max_lead_s": 4,
            "max_buffered_s": 20,
            "ready_timeout_s": 11,
            "end_tail_s": 1.5,
            "retention_s": 12,
            "detach_grace_s": 13,
            "max_chunk_bytes": 2048,
        },
    )
    permits, pool = components.permits(settings), components.pool(settings)
    directory, rpc = components.directory(settings), components.rpc(settings)
    assert (permits.limit, permits.max_waiting, permits.wait_s) == (7, 8, 9)
    assert pool.keep_alive.interval_s == 50
    assert (components.rest(settings).base_url, components.rest(settings).timeout_s) == ("http://127.0.0.1:1", 3)
    assert components.speech(settings).scheduler.first_packet_s == 0.5
    assert (directory.session.speech, directory.session.readiness.ready_timeout_s) == (
        components.speech(settings),
        11,
    )
    assert directory.session.end_tail_s == 1.5
    assert (directory.retention_s, rpc.detach_grace_s, rpc.max_chunk_bytes) == (12, 13, 2048)
    assert rpc.speech.max_buffered_s == 20


def test_retired_keys_come_one_a_line_from_a_file_and_the_one_in_use_is_not_among_them(tmp_path):
    file = tmp_path / "keys"
    file.write_text("first-key\r\nsecond-key, in-use\n\n")
    settings = load({"LIVEAVATAR_API_KEY": "in-use", "GATEWAY_RETIRED_API_KEYS_FILE": str(file)})
    assert sorted(components.retired_keys(settings).values()) == ["first-key", "second-key"]
    assert "first-key" not in str(settings.shown())


def test_a_single_key_is_the_only_account_and_retired_keys_are_former_ones():
    settings = load(
        {"LIVEAVATAR_API_KEY": _SECRET, "GATEWAY_RETIRED_API_KEYS": f"old {_SECRET}", "GATEWAY_MAX_SESSIONS": "7"}
    )
    only, former = components.account_specs(settings, None)
    assert (only.name, only.max_sessions, only.is_former) == ("default", 7, False)
    assert only.id == components.registry(settings).account
    assert (former.state, former.is_former, former.api_key) == (AccountState.RETIRED, True, "old")
    assert _SECRET not in repr(only)


def test_accounts_of_a_file_keep_their_names_whatever_their_keys(tmp_path):
    accounts = AccountsFile(tmp_path)
    path = accounts.write({"main": {"key": "k-1", "max_sessions": 3, "avatars": [], "tenants": ["acme"]}})
    settings = load({"GATEWAY_POOL_FILE": str(path), "GATEWAY_RETIRED_API_KEYS": "k-1 k-0"})
    content = pool_file.read(path)
    main, former = components.account_specs(settings, content)
    assert (main.id, main.max_sessions, main.avatars, main.tenants) == (
        "main",
        3,
        frozenset(),
        frozenset({"acme"}),
    )
    assert (former.api_key, former.is_former) == ("k-0", True), "a key that is in use again is not a former one"
    accounts.write_key("main", "k-2")
    assert components.account_specs(settings, pool_file.read(path))[0].id == "main"
    assert components.max_sessions(settings, content) == 3
    assert components.registry(settings, content).account == "pool"


def test_the_health_of_accounts_follows_the_settings():
    settings = load({}, flags={"breaker_failures": 7, "breaker_s": 2, "starts_per_s": 3, "credits_poll_s": 30})
    health = components.account(settings).health
    assert (health.breaker.failures, health.breaker.interval_s, health.starts_per_s) == (7, 2, 3)
    assert (components.accounts(settings).credits_s, components.accounts(settings).broke_s) == (30, 2)


def test_floors_are_kept_on_the_accounts_that_a_tenant_may_use():
    specs = [
        AccountSpec(id="main", tenants=frozenset({"acme"})),
        AccountSpec(id="spare"),
        AccountSpec(id="old", tenants=frozenset({"late"}), state=AccountState.RETIRED),
    ]
    of_tenants = {name: PoolShare(reserved=2, ceiling=5) for name in ("acme", "zoo")}
    found = components.shares(of_tenants, specs).by_tenant
    assert (found["acme"].accounts, found["zoo"].accounts) == (("main", "spare"), ("spare",))
    assert (found["zoo"].floor, found["zoo"].ceiling) == (2, 5)
    assert components.shares({"zoo": PoolShare(reserved=2)}, specs[:1]).of("zoo").floor == 0


def test_a_caller_is_not_kept_waiting_for_a_floor_that_its_account_cannot_serve():
    specs = [AccountSpec(id="main", max_sessions=2, tenants=frozenset({"acme"})), AccountSpec(id="spare")]
    shares = components.shares({"zoo": PoolShare(reserved=2), "acme": PoolShare()}, specs)
    limits = {spec.id: AccountLimit(name=spec.id, limit=spec.max_sessions) for spec in specs}
    book = Book()
    book.enter(Waiter(id="w", tenant="acme", owner="o", accounts=("main", "spare"), deadline_s=10.0), shares, 0.0)
    assert [grant.permit.account for grant in book.grant(limits, shares, 0.0)] == ["main"]
