"""Every refusal as gRPC sees it: one code, and all the details a caller can act on."""

from typing import Any
from urllib.parse import quote

import pytest
from google.rpc import error_details_pb2 as d
from google.rpc import status_pb2

from liveavatar_gateway.core import errors as e
from liveavatar_gateway.rpc.errors import CODES, DOMAIN, fit_to_trailers, status_of

_KINDS = (
    d.ErrorInfo,
    d.BadRequest,
    d.RetryInfo,
    d.QuotaFailure,
    d.PreconditionFailure,
    d.ResourceInfo,
    d.Help,
)


def leaves(root: type[e.GatewayError] = e.GatewayError) -> list[type[e.GatewayError]]:
    return [leaf for child in root.__subclasses__() for leaf in (leaves(child) or [child])]


def details(status: status_pb2.Status) -> dict[type, Any]:
    """The details of a status by their kind; fails when one is there twice or is not known."""
    found: dict[type, Any] = {}
    for packed in status.details:
        (kind,) = [kind for kind in _KINDS if packed.Is(kind.DESCRIPTOR)]
        assert kind not in found
        found[kind] = kind()
        packed.Unpack(found[kind])
    return found


EXAMPLES = {
    type(error): error
    for error in (
        e.InvalidField("spec.avatar_id is empty", field="spec.avatar_id", avatar_id=""),
        e.HeaderRequired("send header first", field="header", got="chunk"),
        e.UnexpectedMessage("begin twice", field="begin"),
        e.AudioFormatUnsupported("no", field="header.format.encoding", encoding="OPUS"),
        e.AudioContainerDetected("WAV"),
        e.AudioMisaligned(3, 2),
        e.ChunkTooLarge(10, 5),
        e.AudioGap("u-1", 10, 20),
        e.TimingsInvalid("u-1", "each text has one start", field="timings.text.start_ms"),
        e.TimingsGap("u-1", 10, 20, field="timings.text.first_item"),
        e.TimingsLimit("u-1", 100, "session", field="timings.text.texts"),
        e.UtteranceIdReused("u-1"),
        e.UtteranceNotFound("u-1"),
        e.ReservationNotFound("r"),
        e.ReservationMismatch("r", "avatar"),
        e.SessionNotFound("s-1"),
        e.AccountNotFound("main"),
        e.SessionEnded("s-1", "IDLE", "IDLE_TIMEOUT"),
        e.EventsCompacted(1, 5),
        e.RequestIdReused("r-1"),
        e.CreditExceeded(10, 5, 0.25),
        e.CapacityExhausted("full", scope="upstream_account", retry_after_s=1.5, values={"limit": 3}),
        e.BudgetExhausted(
            "acme", period="day", used=60, limit=60, until="2026-12-01T00:00:00+00:00", retry_after_s=3600.0
        ),
        e.AttachSuperseded("s-1"),
        e.AudioStreamSuperseded("s-1"),
        e.Draining(),
        e.OwnerMoved("s-1", address="127.0.0.1:50051"),
        e.RegistryUnavailable("disk full"),
        e.UpstreamUnauthenticated("check the key", http_status=401),
        e.UpstreamCreditsExhausted("add credits", http_status=403),
        e.UpstreamPlanRequired("lower the quality", http_status=403),
        e.UpstreamRejected("no", field="spec.max_duration", http_status=400),
        e.UpstreamRateLimited("slow down", retry_after_s=2.0),
        e.UpstreamUnreachable("gone", retry_after_s=0.25),
        e.UpstreamProtocol("what is this", retry_after_s=1.0),
        e.UpstreamAddressRefused("no", address="ws_url", cause="userinfo"),
        e.UpstreamTimeout("too slow", retry_after_s=0.25),
        e.ReadyTimeout("not ready", timeout_s=20),
        e.UpstreamStalled("nothing came", utterance_id="u-1"),
        e.AgentSeatTaken("s-1"),
        e.AgentHosted("s-1", "interrupt"),
        e.RoomNotOwn("s-1"),
        e.ParticipantNotFound("ann", field="identities"),
        e.DataNotPermitted("s-1"),
        e.UtteranceIdle("u-1", 5.0),
        e.FirstMessageTimeout(10.0),
        e.MalformedMessage("liveavatar.gateway.v1.SessionService/GetSession", 12),
        e.MessageTooLarge("SessionService.ListSessions", 300_000, 65_536),
        e.AnswersUnread(60.0),
        e.TooManyCalls("calls", 1800),
        e.MetadataTooLarge(20_000, 16_384),
        e.CredentialMissing(),
        e.CredentialInvalid("unknown API key"),
        e.CredentialExpired("2026-11-30T12:00:00+00:00"),
        e.CredentialUnverifiable("https://issuer.example", 5.0),
        e.TenantSuspended("acme"),
        e.RoleMissing("SessionService.CreateSession", "open"),
        e.RoomNotAllowed("theirs", "rooms that begin with 'acme-'", field="spec.livekit_room.name"),
        e.QuotaExceeded("acme", "max_sessions", limit=1, used=1, retry_after_s=1.0),
        e.AvatarNotAllowed("0b1e6a52-6f0c-4f5e-9a51-3f3f2b6f1c11", "acme", field="spec.avatar_id"),
        e.InternalError("a fault", incident="i-1"),
        e.RoomUnreachable("no answer in time"),
        e.RoomTokenMissing("s"),
    )
}

DOCUMENTED = {
    "INVALID_ARGUMENT": {d.BadRequest},
    "UNAUTHENTICATED": set(),
    "PERMISSION_DENIED": set(),
    "NOT_FOUND": set(),
    "ALREADY_EXISTS": set(),
    "FAILED_PRECONDITION": {d.PreconditionFailure},
    "RESOURCE_EXHAUSTED": {d.RetryInfo},
    "ABORTED": set(),
    "OUT_OF_RANGE": set(),
    "UNAVAILABLE": {d.RetryInfo},
    "DEADLINE_EXCEEDED": set(),
    "UNKNOWN": set(),
}
"""Details that `errors.proto` promises for each code, besides ErrorInfo."""


@pytest.mark.parametrize("leaf", leaves(), ids=lambda leaf: leaf.__name__)
def test_every_refusal_has_a_code_and_an_example_here(leaf):
    assert leaf in CODES
    assert leaf in EXAMPLES


def test_no_code_is_given_to_a_class_that_is_not_raised():
    assert set(CODES) == set(leaves())


@pytest.mark.parametrize("error", EXAMPLES.values(), ids=lambda error: error.reason)
def test_a_status_has_code_message_reason_and_every_value(error):
    status = status_of(error)
    info = details(status)[d.ErrorInfo]
    assert status.code == CODES[type(error)].value[0]
    assert status.message == error.message
    assert (info.domain, info.reason) == (DOMAIN, error.reason)
    assert info.metadata == {key: value for key, value in error.metadata.items() if value}


@pytest.mark.parametrize("error", EXAMPLES.values(), ids=lambda error: error.reason)
def test_a_status_has_the_details_that_its_code_promises(error):
    assert DOCUMENTED[CODES[type(error)].name] <= set(details(status_of(error)))


@pytest.mark.parametrize("error", EXAMPLES.values(), ids=lambda error: error.reason)
def test_a_field_at_fault_is_named_with_its_path(error):
    found = details(status_of(error)).get(d.BadRequest)
    if error.field is None:
        assert found is None or found.field_violations[0].field == ""
    else:
        (violation,) = found.field_violations
        assert (violation.field, violation.reason) == (error.field, error.reason)
        assert violation.description == error.message


@pytest.mark.parametrize("error", EXAMPLES.values(), ids=lambda error: error.reason)
def test_a_wait_is_told_exactly_where_waiting_helps(error):
    found = details(status_of(error)).get(d.RetryInfo)
    assert (found is None) == (error.retry_after_s is None)
    if found is not None:
        assert found.retry_delay.ToNanoseconds() == round(error.retry_after_s * 1e9)


def test_a_wait_longer_than_any_is_still_a_duration():
    status = status_of(e.UpstreamRateLimited("slow", retry_after_s=3600.0))
    assert details(status)[d.RetryInfo].retry_delay.seconds == 3600


def test_a_full_account_names_whose_limit_it_is():
    (violation,) = details(status_of(EXAMPLES[e.CapacityExhausted]))[d.QuotaFailure].violations
    assert (violation.subject, violation.description) == ("upstream_account", "full")


def test_a_spent_budget_names_its_tenant():
    (violation,) = details(status_of(EXAMPLES[e.BudgetExhausted]))[d.QuotaFailure].violations
    assert violation.subject == "tenant:acme"
    assert "60 of the 60 minutes of this day" in violation.description


def test_only_limits_of_the_gateway_and_of_tenants_are_quotas():
    quotas = {kind for kind, error in EXAMPLES.items() if d.QuotaFailure in details(status_of(error))}
    assert quotas == {e.CapacityExhausted, e.TooManyCalls, e.BudgetExhausted, e.QuotaExceeded}


def test_a_quota_names_its_tenant_and_its_scope():
    (violation,) = details(status_of(EXAMPLES[e.QuotaExceeded]))[d.QuotaFailure].violations
    assert violation.subject == "tenant:acme/max_sessions"


@pytest.mark.parametrize(
    ("kind", "subject"), [(e.SessionEnded, "s-1"), (e.AudioGap, "u-1"), (e.UpstreamPlanRequired, "")]
)
def test_a_failed_precondition_names_what_it_is_about(kind, subject):
    (violation,) = details(status_of(EXAMPLES[kind]))[d.PreconditionFailure].violations
    assert (violation.type, violation.subject) == (kind.reason, subject)


def test_an_account_that_is_not_found_is_named_as_a_resource():
    found = details(status_of(EXAMPLES[e.AccountNotFound]))[d.ResourceInfo]
    assert (found.resource_type, found.resource_name) == ("account", "main")


def test_a_text_that_may_be_a_key_is_not_repeated_as_the_name_of_an_account():
    error = e.AccountNotFound("k" * 64)
    assert "kk" not in error.message
    assert error.metadata["account"] == ""


def test_a_session_that_is_not_found_is_named_as_a_resource():
    found = details(status_of(EXAMPLES[e.SessionNotFound]))[d.ResourceInfo]
    assert (found.resource_type, found.resource_name) == ("session", "s-1")


@pytest.mark.parametrize("kind", [e.UpstreamUnauthenticated, e.UpstreamCreditsExhausted, e.UpstreamPlanRequired])
def test_what_only_a_human_can_mend_comes_with_a_link(kind):
    (link,) = details(status_of(EXAMPLES[kind]))[d.Help].links
    assert link.url.startswith("https://")


def test_empty_values_are_left_out():
    info = details(status_of(e.SessionEnded("s-1", "CALLER_ENDED")))[d.ErrorInfo]
    assert set(info.metadata) == {"session_id", "end_reason"}


@pytest.mark.parametrize("word", ["x", "ä", "\U0001f600", "%", "\n"])
@pytest.mark.parametrize("kind", ["ended", "rejected", "many facts"])
def test_an_error_fits_into_trailers_however_much_it_has_to_say(word, kind):
    long = word * 20_000
    error = {
        "ended": e.SessionEnded("s-1", "UPSTREAM_ENDED", long),
        "rejected": e.UpstreamRejected(long, field="spec.avatar_id", upstream_message=long),
        "many facts": e.UpstreamProtocol(long, values={f"fact_{number}": long for number in range(8)}),
    }[kind]
    fitting = fit_to_trailers(error)
    status = status_of(fitting)
    # As they are on the wire: percent-encoded, and in base64.
    assert len(quote(fitting.message)) + len(status.SerializeToString()) * 4 / 3 < 7000
    assert details(status)[d.ErrorInfo].reason == error.reason
