"""Values of LiveAvatar's answers: impossible limits are dropped, and secrets do not show."""

from liveavatar_gateway.upstream.model import Minted, Started


def started(max_duration_s: float | None) -> Started:
    return Started(
        session_id="s",
        ws_url="wss://secret",
        room_url="wss://r",
        viewer_token="token",
        max_duration_s=max_duration_s,
    )


def test_an_impossible_limit_is_dropped():
    assert started(60.0).max_duration_s == 60.0
    assert started(-1.0).max_duration_s is None


def test_secrets_do_not_show():
    shown = f"{started(60.0)!r} {Minted(session_id='s', token='token')!r}"
    assert "secret" not in shown
    assert "token=" not in shown
