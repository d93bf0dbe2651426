"""Tree of errors: each has a public reason that the contract documents, and keeps its values."""

import pytest

from liveavatar.gateway.v1 import errors_pb2
from liveavatar_gateway.core import errors as e

_PREFIX = "ERROR_REASON_"
_DOCUMENTED = {value.name for value in errors_pb2.ErrorReason.DESCRIPTOR.values if value.number}
_BRANCHES = (e.CallerError, e.AccessError, e.CapacityError, e.OwnershipError, e.UpstreamError, e.InternalError)


def leaves(root: type[e.GatewayError] = e.GatewayError) -> list[type[e.GatewayError]]:
    """Return the classes without subclasses, which alone are raised."""
    return [leaf for child in root.__subclasses__() for leaf in (leaves(child) or [child])]


EXAMPLES = [
    e.AudioContainerDetected("WAV"),
    e.AudioMisaligned(3, 2),
    e.ChunkTooLarge(10, 5),
    e.AudioGap("u", 10, 20),
    e.TimingsInvalid("u", "each text has one start", field="timings.text.start_ms", values={"count": 2, "got": 1}),
    e.TimingsGap("u", 10, 20, field="timings.text.first_item"),
    e.TimingsLimit("u", 100_000, "utterance", field="timings.text.texts"),
    e.UtteranceIdReused("u"),
    e.UtteranceNotFound("u"),
    e.SessionNotFound("s"),
    e.AccountNotFound("main"),
    e.ReservationNotFound("r"),
    e.ReservationMismatch("r", "quality"),
    e.SessionEnded("s", "CALLER_ENDED", "WORD"),
    e.AgentSeatTaken("s"),
    e.AgentHosted("s", "interrupt"),
    e.RoomNotOwn("s"),
    e.ParticipantNotFound("ann", field="identities"),
    e.DataNotPermitted("s"),
    e.EventsCompacted(1, 5),
    e.RequestIdReused("r"),
    e.UtteranceIdle("u", 30.0),
    e.FirstMessageTimeout(10.0),
    e.MalformedMessage("StreamAudio", 7),
    e.MetadataTooLarge(9_000, 8_192),
    e.MessageTooLarge("SessionService.ListSessions", 300_000, 65_536),
    e.AnswersUnread(60.0),
    e.TooManyCalls("calls", 1800),
    e.CredentialMissing(),
    e.CredentialInvalid("unknown API key"),
    e.CredentialExpired("2026-11-30T12:00:00+00:00"),
    e.CredentialUnverifiable("https://issuer.example", 5.0),
    e.TenantSuspended("acme"),
    e.RoleMissing("SessionService.CreateSession", "open"),
    e.RoomNotAllowed("theirs", "rooms that begin with 'acme-'", field="spec.livekit_room.name"),
    e.QuotaExceeded("acme", "max_sessions", limit=1, used=1, retry_after_s=1.0),
    e.RoomUnreachable("timeout"),
    e.RoomTokenMissing("s"),
    e.AvatarNotAllowed("0b1e6a52-6f0c-4f5e-9a51-3f3f2b6f1c11", "acme", field="spec.avatar_id"),
    e.CreditExceeded(10, 5, 0.5),
    e.CapacityExhausted("all 3 in use", scope="upstream_account", retry_after_s=1.0, values={"limit": 3}),
    e.BudgetExhausted(
        "acme", period="day", used=60, limit=60, until="2026-12-01T00:00:00+00:00", retry_after_s=3600.0
    ),
    e.AttachSuperseded("s"),
    e.AudioStreamSuperseded("s"),
    e.Draining(),
]


@pytest.mark.parametrize("leaf", leaves(), ids=lambda leaf: leaf.__name__)
def test_every_reason_is_in_the_contract(leaf):
    assert _PREFIX + leaf.reason in _DOCUMENTED


def test_every_reason_of_the_contract_is_used_by_exactly_one_class():
    used = [_PREFIX + leaf.reason for leaf in leaves()]
    assert sorted(used) == sorted(_DOCUMENTED)


@pytest.mark.parametrize("leaf", leaves(), ids=lambda leaf: leaf.__name__)
def test_every_refusal_belongs_to_one_branch_of_the_tree(leaf):
    assert sum(issubclass(leaf, branch) for branch in _BRANCHES) == 1


@pytest.mark.parametrize("error", EXAMPLES, ids=lambda error: type(error).__name__)
def test_every_number_in_a_message_is_also_in_its_metadata(error):
    numbers = {word.strip(";,:'()") for word in error.message.split() if word.strip(";,:'()").isdigit()}
    derived = {"4"} if isinstance(error, e.EventsCompacted) else set()  # the sequence before the oldest one
    assert numbers - derived <= set(error.metadata.values())


@pytest.mark.parametrize("error", EXAMPLES, ids=lambda error: type(error).__name__)
def test_metadata_is_text_as_grpc_wants_it(error):
    assert all(isinstance(key, str) and isinstance(value, str) for key, value in error.metadata.items())


def test_facts_and_named_metadata_are_kept_together():
    error = e.UpstreamRejected("no", values={"http_status": 400}, endpoint="/x")
    assert error.metadata == {"http_status": "400", "endpoint": "/x"}


def test_the_end_of_a_session_quotes_liveavatar_only_when_it_said_something():
    assert "LiveAvatar" not in e.SessionEnded("s", "CALLER_ENDED").message
    assert "(LiveAvatar: ZOMBIE)" in e.SessionEnded("s", "UPSTREAM_ENDED", "ZOMBIE").message


def test_a_message_says_what_to_do_next():
    assert "resend from 10" in e.AudioGap("u", 10, 20).message
    assert "choose a new one" in e.UtteranceIdReused("u").message
    assert "create a new one" in e.SessionEnded("s", "IDLE").message


def test_who_asked_the_wrong_process_is_told_which_is_the_right_one_if_that_is_known():
    moved = e.OwnerMoved("s", address="gw-1:50051")
    assert "at gw-1:50051" in moved.message
    assert moved.metadata == {"session_id": "s", "address": "gw-1:50051"}
    assert "now; resume there" in e.OwnerMoved("s").message


def test_what_passes_says_when_to_come_back():
    assert e.Draining().retry_after_s == 1.0
    assert e.RegistryUnavailable("disk I/O error").retry_after_s == 1.0


def test_a_handle_or_key_in_the_place_of_an_id_is_not_repeated():
    handle = "0b1e6a52-6f0c-4f5e-9a51-3f3f2b6f1c11.c2VjcmV0c2VjcmV0"
    error = e.SessionNotFound(handle)
    assert "c2Vj" not in f"{error.message}{error.metadata}"
    assert e.SessionNotFound(handle.partition(".")[0]).metadata["session_id"] in handle


def test_operators_read_why_the_registry_cannot_be_used_and_callers_do_not():
    broken = e.RegistryUnavailable("the registry /var/lib/r.db cannot be used: disk I/O error")
    assert str(broken) == broken.detail == "the registry /var/lib/r.db cannot be used: disk I/O error"
    assert "r.db" not in broken.message
    assert broken.metadata == {}


def test_a_limit_names_its_owner():
    assert e.CapacityExhausted("all 3 in use", scope="replica", retry_after_s=1.0).scope == "replica"


def test_a_seat_that_is_taken_is_named_with_or_without_a_session():
    assert "of session s is" in e.AgentSeatTaken("s").message
    refused = e.AgentSeatTaken(field="spec.room_events")
    assert "agent's seat is the caller's" in refused.message
    assert refused.field == "spec.room_events"
