"""Metadata of calls over gRPC's synchronous API."""

from types import SimpleNamespace

from liveavatar_gateway.cli.bearer import BearerInterceptor


def call(*metadata):
    return SimpleNamespace(
        method="/service/Method",
        timeout=5.0,
        metadata=metadata or None,
        credentials=None,
        wait_for_ready=None,
        compression=None,
    )


def test_a_call_keeps_its_own_arguments_and_gets_the_credential():
    seen = []
    interceptor = BearerInterceptor((("authorization", "Bearer key"),))
    answer = interceptor.intercept_unary_unary(
        lambda details, request: seen.append((details, request)) or "answer", call(("mine", "1")), "request"
    )
    assert answer == "answer"
    details, request = seen[0]
    assert request == "request"
    assert (details.method, details.timeout) == ("/service/Method", 5.0)
    assert details.metadata == [("mine", "1"), ("authorization", "Bearer key")]


def test_a_call_without_a_credential_is_unchanged():
    seen = []
    BearerInterceptor(()).intercept_unary_unary(lambda details, _: seen.append(details), call(), "request")
    assert seen[0].metadata == []
