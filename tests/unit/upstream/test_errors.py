"""Every refusal of LiveAvatar's REST API that was seen, in every shape, becomes one error that says what to do."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from liveavatar_gateway.core import errors as e
from liveavatar_gateway.upstream.errors import Answer, is_absent, is_denied, refusal


def answer(status, body=None, *, headers=None, endpoint="/v1/sessions/token") -> Answer:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Answer.of(status, content, headers or {}, endpoint=endpoint)


def envelope(code, message, data=None) -> dict:
    return {"code": code, "data": data, "message": message}


def detailed(field, message) -> dict:
    return envelope(4000, "Bad request error", [{"loc": [field], "message": message, "params": {}}])


ROWS = [
    (
        "sandbox with another avatar",
        400,
        detailed("avatar_id", "This avatar is not supported in sandbox mode"),
        e.UpstreamRejected,
        "This avatar is not supported in sandbox mode",
    ),
    (
        "duration above the plan's",
        400,
        detailed("max_session_duration", "max_session_duration (600s) exceeds the maximum allowed (60s)"),
        e.UpstreamRejected,
        "exceeds the maximum allowed (60s)",
    ),
    (
        "someone else's avatar",
        400,
        detailed("avatar_id", "You dont have access to this avatar"),
        e.UpstreamRejected,
        "You dont have access",
    ),
    ("empty keep-alive", 400, envelope(4000, ""), e.UpstreamRejected, "LiveAvatar answered 400"),
    ("wrong key", 401, envelope(401, "Unauthorized"), e.UpstreamUnauthenticated, "LIVEAVATAR_API_KEY"),
    ("no credits, by status alone", 402, envelope(402, ""), e.UpstreamCreditsExhausted, "add credits"),
    (
        "plan without 1080p",
        403,
        envelope(4030, "1080p sessions require a Business or Enterprise plan"),
        e.UpstreamPlanRequired,
        "lower quality",
    ),
    (
        "concurrency",
        403,
        envelope(4032, "Session concurrency limit reached"),
        e.CapacityExhausted,
        "GATEWAY_MAX_SESSIONS",
    ),
    ("concurrency, older code", 403, envelope(4003, "Limit reached"), e.CapacityExhausted, "Limit reached"),
    (
        "concurrency, by words alone",
        403,
        envelope(4999, "Session concurrency limit reached"),
        e.CapacityExhausted,
        "concurrency",
    ),
    ("concurrency, by status alone", 409, envelope(409, "Conflict"), e.CapacityExhausted, "Conflict"),
    (
        "no credits, older words",
        403,
        envelope(4033, "No credits available for start session"),
        e.UpstreamCreditsExhausted,
        "No credits available",
    ),
    (
        "no credits, newer words",
        403,
        envelope(4033, "Insufficient credits for session"),
        e.UpstreamCreditsExhausted,
        "Insufficient credits",
    ),
    (
        "no credits, by words alone",
        403,
        envelope(4999, "Insufficient credits"),
        e.UpstreamCreditsExhausted,
        "Insufficient credits",
    ),
    (
        "plan, by words alone",
        403,
        envelope(4999, "Upgrade your plan"),
        e.UpstreamPlanRequired,
        "Upgrade your plan",
    ),
    ("forbidden for a reason of its own", 403, envelope(4999, "No."), e.UpstreamRejected, "No."),
    ("gone already", 404, envelope(404, "Session not found"), e.UpstreamRejected, "Session not found"),
    (
        "schema",
        422,
        {"detail": [{"type": "missing", "loc": ["body", "avatar_id"], "msg": "Field required", "input": {}}]},
        e.UpstreamRejected,
        "Field required",
    ),
    ("rate limit", 429, envelope(4290, "Too many requests"), e.UpstreamRateLimited, "Too many requests"),
    ("server error", 500, envelope(500, "Internal error"), e.UpstreamUnreachable, "a fault of LiveAvatar"),
    ("bad gateway", 502, b"<html>bad gateway</html>", e.UpstreamUnreachable, "LiveAvatar answered 502"),
    ("unavailable", 503, b"", e.UpstreamUnreachable, "LiveAvatar answered 503"),
    ("not LiveAvatar at all", 404, b"<html>nginx</html>", e.UpstreamProtocol, "LIVEAVATAR_API_URL"),
    ("a proxy's login page", 401, b"<html>log in</html>", e.UpstreamProtocol, "proxies on the way"),
    ("a proxy's block page", 403, b"<html>blocked</html>", e.UpstreamProtocol, "proxies on the way"),
    ("an API gateway's own JSON", 404, {"message": "no Route matched"}, e.UpstreamProtocol, "404"),
    ("its code and words", 404, {"code": 404, "message": "HTTP 404 Not Found"}, e.UpstreamProtocol, "404"),
    ("the framework's unknown path", 404, {"detail": "Not Found"}, e.UpstreamProtocol, "404"),
    ("gone, says a proxy", 410, b"", e.UpstreamProtocol, "410"),
    ("moved, says a proxy", 302, b"<html>moved</html>", e.UpstreamProtocol, "302"),
]


@pytest.mark.parametrize(
    ("status", "body", "kind", "words"), [row[1:] for row in ROWS], ids=[row[0] for row in ROWS]
)
def test_a_refusal_becomes_the_error_that_says_what_to_do(status, body, kind, words):
    error = refusal(answer(status, body))
    assert type(error) is kind
    assert words in error.message
    assert error.metadata["http_status"] == str(status)
    assert error.metadata["endpoint"] == "/v1/sessions/token"


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (detailed("avatar_id", "detail goes first"), "detail goes first"),
        (envelope(4000, "then the message"), "then the message"),
        ({"detail": [{"loc": ["body"], "msg": "then the framework's"}]}, "then the framework's"),
        ({"code": 1, "data": ["no object"], "message": ""}, ""),
    ],
)
def test_the_best_words_are_found_in_every_shape(body, words):
    assert answer(422, body).message == words


@pytest.mark.parametrize("status", [302, 400, 403, 404, 407, 422, 429, 500, 502, 503])
@pytest.mark.parametrize(
    "body",
    [
        b"<html>squid/5.7 at proxy.corp.example</html>",
        {"detail": "squid/5.7 at proxy.corp.example"},
        {"error": "squid/5.7 at proxy.corp.example"},
        {"message": "squid/5.7 at proxy.corp.example", "code": "x"},
    ],
    ids=str,
)
def test_what_is_not_liveavatars_is_not_passed_on(status, body):
    found = answer(status, body)
    error = refusal(found, incident="i-1")
    assert "squid" in found.excerpt
    assert "squid" not in f"{error.message}{error.metadata}{error.field}"
    assert error.metadata["incident"] == "i-1"
    assert "incident i-1" in error.message
    assert str(status) in error.message


@pytest.mark.parametrize("damage", [lambda text: text[:-10], lambda text: f"[{text}]", lambda text: text])
def test_no_part_of_a_damaged_answer_is_logged(damage):
    text = json.dumps({"code": "1000", "data": {"session_token": "tok-0123456789", "ws_url": "wss://x/ws/secret"}})
    found = answer(200, damage(text).encode())
    assert not found.own
    assert "JSON" in found.excerpt
    assert "tok-" not in found.excerpt


def test_an_excerpt_is_bounded_and_liveavatars_own_words_have_none():
    assert len(answer(502, b"x" * 100_000).excerpt) == 500
    assert answer(403, envelope(4033, "Insufficient credits")).excerpt == ""


def test_liveavatars_words_are_escaped_and_a_field_is_a_name():
    error = refusal(answer(400, detailed("a\x1b[2J", "no\x1b[2J\u202e")))
    assert error.message == r"LiveAvatar: no\x1b[2J\u202e"
    assert error.field is None


def test_code_and_words_of_liveavatar_are_kept_for_programs():
    error = refusal(answer(403, envelope(4033, "Insufficient credits for session")))
    assert error.metadata["upstream_code"] == "4033"
    assert error.metadata["upstream_message"] == "Insufficient credits for session"


def test_an_answer_without_code_and_words_has_neither_in_its_metadata():
    assert set(refusal(answer(400, envelope(None, ""))).metadata) == {"endpoint", "http_status", "foreign_answer"}
    assert set(refusal(answer(400, envelope(4000, ""))).metadata) == {"endpoint", "http_status", "upstream_code"}


@pytest.mark.parametrize("code", ["4033", True, None, 4.5])
def test_a_code_that_is_no_integer_is_no_code(code):
    assert answer(403, {"code": code, "message": ""}).code is None


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("avatar_id", "spec.avatar_id"),
        ("max_session_duration", "spec.max_duration"),
        ("is_sandbox", "spec.sandbox"),
        ("quality", "spec.video.quality"),
        ("encoding", "spec.video.encoding"),
        ("something_new", "something_new"),
    ],
)
def test_a_field_is_named_as_the_caller_knows_it(theirs, ours):
    assert refusal(answer(400, detailed(theirs, "no"))).field == ours


def test_the_frameworks_own_shape_names_the_field_too():
    assert refusal(answer(422, {"detail": [{"loc": ["body", "avatar_id"], "msg": "x"}]})).field == "spec.avatar_id"


@pytest.mark.parametrize("loc", [None, [], "avatar_id"])
def test_a_detail_without_a_location_names_no_field(loc):
    assert refusal(answer(422, {"detail": [{"loc": loc, "msg": "x"}]})).field is None


@pytest.mark.parametrize("status", [403, 409, 429, 500, 503])
def test_retry_after_is_passed_on_where_waiting_helps(status):
    error = refusal(answer(status, envelope(4032, "limit"), headers={"retry-after": "7"}))
    assert error.retry_after_s == 7.0


@pytest.mark.parametrize(("said", "waits_s"), [("", 1.0), ("soon", 1.0), ("-3", 1.0), ("0", 1.0), ("0.5", 0.5)])
def test_without_a_usable_retry_after_a_second_is_assumed(said, waits_s):
    assert refusal(answer(429, {}, headers={"retry-after": said})).retry_after_s == waits_s


@pytest.mark.parametrize("said", ["inf", "nan", "1e300"])
def test_a_retry_after_that_is_no_sensible_time_is_not_waited_for(said):
    """A caller would get it as a `Duration`, and a retry would sleep for it."""
    assert refusal(answer(429, {}, headers={"retry-after": said})).retry_after_s in (1.0, 60.0)


@pytest.mark.parametrize("status", [400, 401, 402, 404, 422])
def test_what_waiting_does_not_cure_has_no_retry(status):
    assert refusal(answer(status, envelope(4000, "no"), headers={"retry-after": "7"})).retry_after_s is None


def test_only_so_much_of_liveavatars_words_is_quoted():
    error = refusal(answer(500, envelope(500, "x" * 100_000)))
    assert len(error.message) < 400
    assert len(error.metadata["upstream_message"].encode()) == 300
    assert error.metadata["upstream_message"].endswith("(cut)")


FOREIGN = [
    b"",
    b"<html>Not Found</html>",
    b"{}",
    b"[]",
    b"null",
    b'"gone"',
    {"code": 404, "message": "gone"},
    {"code": "404", "data": None, "message": "gone"},
    {"code": True, "data": None, "message": "gone"},
    {"code": 404, "data": None, "message": None},
    {"detail": "Session not found"},
    {"error": {"code": 404, "message": "gone"}},
]


@pytest.mark.parametrize("body", FOREIGN, ids=str)
@pytest.mark.parametrize("status", [301, 401, 402, 403, 404, 407, 409, 410, 422, 429, 451])
def test_only_liveavatars_own_form_proves_anything(status, body):
    error = refusal(answer(status, body, endpoint="/v1/sessions/stop"))
    assert not is_denied(error)
    assert not is_absent(error)
    assert error.metadata["foreign_answer"] == "true"
    assert error.retry_after_s is not None


@pytest.mark.parametrize("status", [400, 401, 402, 403, 404, 409, 422, 429])
def test_a_refusal_of_liveavatars_own_is_proof_that_nothing_was_done(status):
    error = refusal(answer(status, envelope(4000, "no")))
    assert is_denied(error)
    assert is_absent(error) is (status == 404)


@pytest.mark.parametrize("status", [408, 500, 502, 503])
def test_a_failure_may_come_after_the_effect(status):
    assert not is_denied(refusal(answer(status, envelope(500, "no"))))


def test_the_frameworks_list_of_details_is_liveavatars_own():
    error = refusal(
        answer(422, {"detail": [{"type": "missing", "loc": ["body", "avatar_id"], "msg": "required"}]})
    )
    assert is_denied(error)


@settings(max_examples=150, deadline=None)
@given(status=st.integers(300, 599), content=st.binary(max_size=60), said=st.text(max_size=8))
def test_no_answer_is_too_strange_to_become_an_error(status, content, said):
    error = refusal(answer(status, content, headers={"retry-after": said}))
    assert isinstance(error, e.GatewayError)
    assert error.message
