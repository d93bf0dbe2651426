"""Keys, files and token sources: when a source is called, and what is shown of a credential."""

import asyncio
import functools
import logging
import threading
from datetime import UTC, datetime, timedelta

import grpc
import pytest

from liveavatar.gateway import (
    CredentialExpired,
    CredentialInvalid,
    RoleMissing,
    Token,
    TokenUnavailable,
    Unauthenticated,
)
from liveavatar.gateway.credentials import FILE_AGE_S, Bearer, Credentials, Renewal, refuses_credential

EXPIRED = CredentialExpired("expired", code=grpc.StatusCode.UNAUTHENTICATED)


class Source:
    """Token source that counts its calls; each answer is a token or an exception."""

    def __init__(self, *answers):
        self.answers, self.call_count = list(answers), 0

    async def __call__(self):
        self.call_count += 1
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, BaseException):
            raise answer
        return answer


def in_seconds(seconds):
    return datetime.now(UTC) + timedelta(seconds=seconds)


class Clock:
    """Clock that the test moves."""

    def __init__(self):
        self.now_s = 0.0

    def __call__(self):
        return self.now_s


async def text(credentials):
    return dict((await credentials.current()).metadata).get("authorization")


async def test_without_a_credential_nothing_is_sent():
    credentials = Credentials(None)
    assert not credentials.given
    assert (await credentials.current()).metadata == ()


async def test_a_key_is_sent_and_never_renewed():
    credentials = Credentials(" lag_key\n")
    assert credentials.given
    assert not credentials.renewable
    bearer = await credentials.current()
    assert bearer.metadata == (("authorization", "Bearer lag_key"),)
    credentials.refuse(bearer)
    assert await credentials.current() is bearer


@pytest.mark.parametrize("given", ["", "two words", "line\nline", "schlüssel"])
def test_a_key_that_no_header_can_hold_is_refused_without_repeating_it(given):
    with pytest.raises(ValueError, match="printable ASCII") as refused:
        Credentials(given)
    assert not given or given not in str(refused.value)


async def test_a_source_is_called_once_for_many_calls():
    source = Source("token")
    credentials = Credentials(source)
    assert credentials.renewable
    assert await asyncio.gather(*(text(credentials) for _ in range(10))) == ["Bearer token"] * 10
    assert source.call_count == 1


async def test_sources_of_all_kinds():
    async def coroutine():
        return "a"

    threads = set()

    def blocking():
        threads.add(threading.current_thread())
        return Token("b")

    def returning():
        return coroutine()

    assert await text(Credentials(coroutine)) == "Bearer a"
    assert await text(Credentials(functools.partial(coroutine))) == "Bearer a"
    assert await text(Credentials(blocking)) == "Bearer b"
    assert await text(Credentials(returning)) == "Bearer a"
    assert threading.current_thread() not in threads


async def test_a_refused_token_is_replaced_and_an_older_refusal_has_no_effect():
    source = Source("first", "second", "third")
    credentials = Credentials(source)
    first = await credentials.current()
    credentials.refuse(first)
    second = await credentials.current()
    credentials.refuse(first)
    assert await credentials.current() is second
    assert source.call_count == 2


async def test_a_token_is_renewed_before_it_expires():
    clock = Clock()
    credentials = Credentials(Source(Token("first", in_seconds(100)), "second"), clock=clock)
    assert await text(credentials) == "Bearer first"
    clock.now_s = 70
    assert await text(credentials) == "Bearer first"
    clock.now_s = 81
    assert await text(credentials) == "Bearer second"


async def test_a_failing_source_leaves_a_valid_token_in_use(caplog):
    clock = Clock()
    source = Source(Token("first", in_seconds(100)), ValueError("first is late"))
    credentials = Credentials(source, clock=clock)
    assert await text(credentials) == "Bearer first"
    clock.now_s = 90
    with caplog.at_level(logging.WARNING):
        assert await text(credentials) == "Bearer first"
    assert "credentials.not_renewed cause=raised ValueError" in caplog.text
    assert "first" not in caplog.text
    clock.now_s = 101
    with pytest.raises(TokenUnavailable, match="raised ValueError"):
        await credentials.current()


@pytest.mark.parametrize(
    "failure", [ValueError("s3cret"), SystemExit("s3cret"), asyncio.CancelledError("s3cret"), KeyboardInterrupt()]
)
async def test_a_failure_of_the_source_is_one_of_this_call_alone(failure):
    credentials = Credentials(Source(failure, "token"))
    with pytest.raises(TokenUnavailable) as raised:
        await credentials.current()
    assert raised.value.__cause__ is failure
    assert "s3cret" not in str(raised.value)
    assert await text(credentials) == "Bearer token"


@pytest.mark.parametrize("answer", [None, "two words", Token("token", datetime(2100, 1, 1))])  # noqa: DTZ001
async def test_an_unusable_answer_is_a_failure(answer):
    with pytest.raises(TokenUnavailable):
        await Credentials(Source(answer)).current()


async def test_a_source_that_hangs_is_left_in_time():
    for source in (asyncio.Event().wait, threading.Event().wait):
        with pytest.raises(TokenUnavailable, match=r"did not answer within 0\.05 s"):
            await Credentials(source).current(0.05)


async def test_a_cancelled_call_is_cancelled():
    waiting = asyncio.create_task(Credentials(asyncio.Event().wait).current())
    await asyncio.sleep(0.01)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting


async def test_a_file_is_read_again_when_its_content_is_refused(tmp_path):
    path = tmp_path / "key"
    path.write_text("lag_old\n")
    credentials = Credentials(path)
    old = await credentials.current()
    path.write_text("lag_new\n")
    assert await credentials.current() is old
    credentials.refuse(old)
    assert await text(credentials) == "Bearer lag_new"


async def test_a_file_is_read_again_after_a_while(tmp_path):
    clock = Clock()
    path = tmp_path / "key"
    path.write_text("lag_old")
    credentials = Credentials(path, clock=clock)
    assert await text(credentials) == "Bearer lag_old"
    path.write_text("lag_new")
    clock.now_s = FILE_AGE_S
    assert await text(credentials) == "Bearer lag_new"
    path.unlink()
    clock.now_s *= 2
    assert await text(credentials) == "Bearer lag_new"


@pytest.mark.parametrize("content", [None, b"", b"x" * 70_000, b"\xff\xfe"])
async def test_an_unusable_file_is_named(tmp_path, content):
    path = tmp_path / "key"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(TokenUnavailable):
        await Credentials(path).current()


def test_a_credential_is_in_no_repr():
    shown = [Token("s3cret"), Bearer("s3cret"), Credentials("s3cret"), Credentials("s3cret").renewal()]
    assert "s3cret" not in repr(shown)


def test_a_renewal_is_tried_once_between_two_successes():
    renewal = Renewal(renewable=True)
    assert not renewal.allows(RoleMissing("no"))
    assert renewal.allows(EXPIRED)
    assert not renewal.allows(EXPIRED)
    renewal.reset()
    assert renewal.allows(Unauthenticated("of a proxy"))


def test_a_fixed_key_is_not_tried_again():
    assert not Renewal(renewable=False).allows(EXPIRED)


def test_other_refusals_are_no_reason_for_another_credential():
    assert refuses_credential(EXPIRED)
    assert refuses_credential(CredentialInvalid("revoked"))
    assert not refuses_credential(RoleMissing("no"))


async def test_a_credential_is_replaced_only_by_another_one(caplog):
    credentials = Credentials(Source("first", "first", OSError("away"), "second"))
    first = await credentials.current()
    assert not await credentials.renew(first)
    assert not await credentials.renew(first)
    assert "credentials.not_renewed" in caplog.text
    assert await credentials.renew(first)
    assert await credentials.renew(first)
    assert await text(credentials) == "Bearer second"
