"""Knobs are checked by name and range."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from liveavatar_emulator.config import (
    InvalidLiveKit,
    InvalidSetting,
    LiveKitServer,
    ServerConfig,
    Settings,
    UnknownSetting,
    changed,
    check_room_clock,
    livekit_server,
)


def test_an_unknown_knob_is_named_with_a_suggestion():
    with pytest.raises(UnknownSetting, match="did you mean 'speed'") as refused:
        changed(Settings(), {"sped": 2})
    assert (refused.value.name, refused.value.suggestion) == ("sped", "speed")


@pytest.mark.parametrize(
    ("name", "value"),
    [("speed", 0), ("speed", float("nan")), ("concurrency", -1), ("profile", "baroque"), ("rate", "many")],
)
def test_a_value_out_of_range_is_named(name, value):
    with pytest.raises(InvalidSetting) as refused:
        changed(Settings(), {name: value})
    assert refused.value.name == name


def test_a_change_keeps_the_other_knobs():
    settings = changed(Settings(idle_s=7), {"speed": 3})
    assert (settings.idle_s, settings.speed) == (7, 3)


def test_settings_are_values():
    with pytest.raises(ValidationError):
        Settings().speed = 2  # type: ignore[misc]


def test_every_knob_explains_itself():
    assert [name for name, field in Settings.model_fields.items() if not field.description] == []


def test_the_guide_lists_every_knob_with_its_default():
    guide = (Path(__file__).parents[3] / "docs" / "emulator.md").read_text()
    for name, field in Settings.model_fields.items():
        default = (
            {True: "on", False: "off"}.get(field.default)
            if isinstance(field.default, bool)
            else f"`{field.default}`"
        )
        assert f"| `{name}` | {default} |" in guide


def test_no_livekit_option_at_all_is_no_room():
    assert livekit_server(None, "", None) is None


@pytest.mark.parametrize(
    ("given", "missing"),
    [
        (("ws://127.0.0.1:7880", "devkey", None), ["--livekit-secret"]),
        (("ws://127.0.0.1:7880", None, None), ["--livekit-key", "--livekit-secret"]),
        ((None, "devkey", "secret"), ["--livekit-url"]),
    ],
)
def test_some_of_the_livekit_options_are_refused_with_those_that_are_missing(given, missing):
    with pytest.raises(InvalidLiveKit) as refused:
        livekit_server(*given)
    for option in ("--livekit-url", "--livekit-key", "--livekit-secret"):
        assert (f"{option} (or EMULATOR_" in str(refused.value)) == (option in missing)


@pytest.mark.parametrize("url", ["localhost:7880", "ftp://x", "ws://", "ws://user:pass@x", "http://[::1"])
def test_an_address_that_is_no_livekit_servers_is_refused(url):
    with pytest.raises(InvalidLiveKit, match="--livekit-url"):
        livekit_server(url, "devkey", "secret")


@pytest.mark.parametrize(
    ("given", "taken"),
    [
        ("http://127.0.0.1:7880/", "ws://127.0.0.1:7880"),
        ("https://livekit.example.com", "wss://livekit.example.com"),
        ("wss://livekit.example.com/rooms", "wss://livekit.example.com/rooms"),
    ],
)
def test_the_livekit_address_is_the_one_that_clients_join(given, taken):
    server = livekit_server(given, "devkey", "a secret of some length")
    assert server is not None
    assert server.url == taken
    assert "a secret" not in repr(server)


def test_rooms_run_in_real_time_only():
    livekit = LiveKitServer(url="ws://x", api_key="k", api_secret="s")
    with pytest.raises(InvalidSetting, match="real time"):
        check_room_clock(Settings(speed=2))
    with pytest.raises(InvalidSetting, match="real time"):
        ServerConfig(livekit=livekit, clock_speed=2)
    with pytest.raises(InvalidSetting, match="clock"):
        ServerConfig(livekit=livekit, clock="manual")
    check_room_clock(Settings())
    ServerConfig(livekit=livekit)
