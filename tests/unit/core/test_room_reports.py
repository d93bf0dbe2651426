"""Reports about a room: complete, and bounded whatever participants do."""

import itertools

import pytest

from liveavatar_gateway.core.errors import RoomTokenMissing, RoomUnreachable
from liveavatar_gateway.core.room_events import (
    MAX_DATA_BYTES,
    AvatarTracksChanged,
    DataDropped,
    DataReceived,
    Microphone,
    MicrophoneChanged,
    ParticipantJoined,
    ParticipantKind,
    ParticipantLeft,
    RoomConnected,
    RoomDisconnected,
    RoomLossCause,
    RoomParticipant,
    ViewersChanged,
)
from liveavatar_gateway.core.room_reports import (
    MAX_PARTICIPANTS,
    MAX_SENDERS,
    ROOM_LINK_TRANSITIONS,
    RoomLink,
    RoomReports,
)
from liveavatar_gateway.core.states import IllegalTransition, move

_ALLOWED = {
    (RoomLink.JOINING, RoomLink.CONNECTED),
    (RoomLink.JOINING, RoomLink.DISCONNECTED),
    (RoomLink.CONNECTED, RoomLink.JOINING),
    (RoomLink.CONNECTED, RoomLink.DISCONNECTED),
    (RoomLink.DISCONNECTED, RoomLink.CONNECTED),
    (RoomLink.DISCONNECTED, RoomLink.DISCONNECTED),
}
ANN = RoomParticipant("ann", "Ann", ParticipantKind.USER)
ADA = RoomParticipant("ada", "", ParticipantKind.AVATAR)


def user(identity: str, microphone: Microphone = Microphone.NONE) -> RoomParticipant:
    return RoomParticipant(identity, "", ParticipantKind.USER, microphone)


def joined(*participants: RoomParticipant) -> RoomReports:
    """Return reports of a room whose join is reported."""
    reports = RoomReports(is_wanted=True)
    reports.connected(participants)
    reports.take(0.0)
    return reports


def send(
    reports: RoomReports,
    count: int,
    now_s: float,
    *,
    who: str = "ann",
    size: int = 1,
    is_followed: bool = True,
) -> int:
    """Send data messages; returns how many were taken."""
    taken = [reports.receive(who, "t", bytes(size), now_s, is_followed=is_followed) for _ in range(count)]
    return sum(taken)


@pytest.mark.parametrize(("one", "other"), list(itertools.product(RoomLink, RoomLink)))
def test_only_transitions_of_the_table_are_allowed(one, other):
    if (one, other) in _ALLOWED:
        assert move(ROOM_LINK_TRANSITIONS, one, other) is other
    else:
        with pytest.raises(IllegalTransition):
            move(ROOM_LINK_TRANSITIONS, one, other)


def test_who_has_not_asked_gets_nothing():
    reports = RoomReports(is_wanted=False)
    reports.connected([ANN])
    reports.note_viewers(True)
    assert reports.take(0.0) == []


def test_the_join_reports_who_is_there():
    reports = RoomReports(is_wanted=True)
    assert reports.take(0.0) == []
    reports.connected([ANN, ADA])
    assert reports.take(0.0) == [RoomConnected((ADA, ANN), 2)]
    assert reports.take(0.0) == []


def test_arrivals_departures_and_voices_are_reported_once():
    reports = joined(ANN)
    bob = user("bob")
    reports.observe([ANN, bob])
    assert reports.take(0.0) == [ParticipantJoined(bob)]
    loud = user("bob", Microphone.LIVE)
    reports.observe([ANN, loud])
    assert reports.take(0.0) == [MicrophoneChanged("bob", Microphone.LIVE)]
    reports.observe([loud])
    assert reports.take(0.0) == [ParticipantLeft(ANN)]
    reports.observe([loud])
    assert reports.take(0.0) == []


def test_an_avatar_has_tracks_and_no_microphone():
    reports = joined(ADA)
    up = RoomParticipant("ada", "", ParticipantKind.AVATAR, Microphone.LIVE, has_video=True)
    reports.observe([up])
    assert reports.take(0.0) == [AvatarTracksChanged("ada", has_audio=True, has_video=True)]
    reports.observe([RoomParticipant("ada", "", ParticipantKind.AVATAR, Microphone.MUTED, has_video=True)])
    assert reports.take(0.0) == []


def test_a_changed_name_is_no_event_and_is_known_later():
    reports = joined(ANN)
    renamed = RoomParticipant("ann", "Anna", ParticipantKind.USER)
    reports.observe([renamed])
    assert reports.take(0.0) == []
    reports.observe([])
    assert reports.take(0.0) == [ParticipantLeft(renamed)]


def test_after_a_loss_the_room_is_reported_anew():
    reports = joined(ANN)
    reports.disconnected(RoomLossCause.LOST)
    assert reports.take(0.0) == [RoomDisconnected(RoomLossCause.LOST)]
    reports.observe([])
    assert reports.take(0.0) == []
    reports.connected([ADA])
    assert reports.take(0.0) == [RoomConnected((ADA,), 1)]


def test_a_second_join_without_a_loss_is_a_change_of_participants():
    reports = joined(ANN)
    reports.connected([ANN, ADA])
    assert reports.take(0.0) == [ParticipantJoined(ADA)]


def test_a_refusal_is_reported_once_with_its_reason():
    reports = RoomReports(is_wanted=True)
    for _ in range(2):
        error = RoomUnreachable("no answer")
        reports.disconnected(RoomLossCause.REFUSED, error)
    assert reports.take(0.0) == [RoomDisconnected(RoomLossCause.REFUSED, error)]
    reports.disconnected(RoomLossCause.REFUSED, RoomUnreachable("no answer"))
    assert reports.take(0.0) == []
    missing = RoomTokenMissing("s")
    reports.disconnected(RoomLossCause.REFUSED, missing)
    assert reports.take(0.0) == [RoomDisconnected(RoomLossCause.REFUSED, missing)]


def test_a_change_of_the_room_is_reported_with_the_next_room():
    reports = joined(ANN)
    reports.changing()
    reports.changing()
    assert reports.take(0.0) == []
    reports.connected([ADA])
    assert reports.take(0.0) == [RoomConnected((ADA,), 1)]


def test_a_change_of_the_room_after_a_loss_changes_nothing():
    reports = joined(ANN)
    reports.disconnected(RoomLossCause.CLOSED)
    reports.changing()
    assert reports.take(0.0) == [RoomDisconnected(RoomLossCause.CLOSED)]


def test_viewers_are_reported_when_they_change():
    reports = RoomReports(is_wanted=True)
    found = []
    for present in (None, False, False, None, True):
        reports.note_viewers(present)
        found.append(reports.take(0.0))
    assert found == [[], [ViewersChanged(present=False)], [], [], [ViewersChanged(present=True)]]


def test_of_a_crowd_the_first_are_listed_and_keep_their_places():
    crowd = [user(f"user-{number}") for number in range(MAX_PARTICIPANTS + 5)]
    reports = RoomReports(is_wanted=True)
    reports.connected([*crowd, ADA])
    (connected,) = reports.take(0.0)
    assert connected.participant_count == MAX_PARTICIPANTS + 6
    assert connected.participants == (ADA, *crowd[: MAX_PARTICIPANTS - 1])
    # The last two of those who are listed leave, and others take their places.
    left = crowd[MAX_PARTICIPANTS - 3 : MAX_PARTICIPANTS - 1]
    reports.observe([ADA, *reversed([one for one in crowd if one not in left])])
    assert reports.take(0.0) == [
        *(ParticipantLeft(one) for one in left),
        ParticipantJoined(crowd[-1]),
        ParticipantJoined(crowd[-2]),
    ]


def test_a_flood_of_changes_is_reported_as_its_result():
    reports = joined(ANN)
    voices = itertools.cycle([Microphone.LIVE, Microphone.MUTED])
    count = 0
    for number in range(2_050):
        reports.observe([user("ann", next(voices))])
        for event in reports.take(number / 1_000):
            known = event.microphone
            count += 1
    assert 60 <= count <= 90
    other = next(voice for voice in voices if voice is not known)
    reports.observe([user("ann", other)])
    assert reports.take(2.05) == []
    due_s = reports.next_s
    assert 2.05 < due_s < 2.2
    assert reports.take(due_s + 0.001) == [MicrophoneChanged("ann", other)]
    assert reports.next_s is None


def test_a_join_that_must_wait_is_reported_with_who_is_there_then():
    reports = RoomReports(is_wanted=True)
    for _ in range(100):
        reports.connected([ANN])
        reports.take(0.0)
        reports.disconnected(RoomLossCause.LOST)
        reports.take(0.0)
    reports.connected([ANN])
    assert reports.take(0.0) == []
    reports.observe([ADA])
    assert reports.take(reports.next_s + 0.001) == [RoomConnected((ADA,), 1)]


def test_data_comes_in_order():
    reports = joined(ANN)
    for number in range(3):
        assert reports.receive("ann", "chat", bytes([number]), 0.0, is_followed=True)
    found = [DataReceived("ann", "chat", bytes([number])) for number in range(3)]
    assert reports.take(0.0) == found


def test_a_flood_of_one_sender_is_dropped_counted_and_leaves_room_for_others():
    reports = joined(ANN)
    assert send(reports, 1_000, 0.0) == 32
    assert send(reports, 1, 0.0, who="bob") == 1
    events = reports.take(0.0)
    assert events[-1] == DataDropped(968, ("ann",))
    assert len(events) == 34
    # From then on, at most each 5 s.
    send(reports, 1_000, 1.0)
    assert all(isinstance(event, DataReceived) for event in reports.take(1.0))
    assert reports.next_s == 5.0
    (dropped,) = reports.take(5.0)
    assert dropped == DataDropped(990, ("ann",))
    assert reports.next_s is None


def test_floods_of_many_senders_are_bounded_together():
    reports = joined(ANN)
    taken = sum(send(reports, 100, 0.0, who=f"user-{number}") for number in range(20))
    assert taken == 64
    dropped = reports.take(0.0)[-1]
    assert dropped.count == 2_000 - 64
    assert len(dropped.identities) == 16


def test_bytes_are_bounded_too():
    reports = joined(ANN)
    assert send(reports, 10, 0.0, size=MAX_DATA_BYTES) == 4
    assert send(reports, 1, 4.0, size=MAX_DATA_BYTES) == 1


def test_what_livekit_does_not_promise_to_deliver_is_dropped():
    reports = joined(ANN)
    assert send(reports, 1, 0.0, size=MAX_DATA_BYTES + 1) == 0
    assert reports.take(0.0) == [DataDropped(1, ("ann",))]


def test_without_a_reader_a_burst_is_kept_and_no_more():
    reports = joined(ANN)
    taken = sum(send(reports, 10, second, who=f"user-{second % 3}", is_followed=False) for second in range(100))
    assert taken == 64
    assert send(reports, 10, 101.0) == 10


def test_senders_that_were_silent_longest_are_forgotten():
    reports = joined(ANN)
    send(reports, 40, 0.0)
    for number in range(MAX_SENDERS):
        send(reports, 1, 0.0, who=f"user-{number}")
    assert len(reports._senders) == MAX_SENDERS
    assert send(reports, 1, 10.0) == 1


def test_drops_before_the_gateway_are_counted():
    reports = joined(ANN)
    reports.dropped(7)
    assert reports.take(0.0) == [DataDropped(7, ())]
