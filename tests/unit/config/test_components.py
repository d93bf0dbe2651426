"""Configurations of components: each gets the values that were set."""

from liveavatar_gateway.config import components, load

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
    account, pool = components.account(settings), components.pool(settings)
    directory, rpc = components.directory(settings), components.rpc(settings)
    assert (account.permits.limit, account.permits.max_waiting, account.permits.wait_s) == (7, 8, 9)
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
