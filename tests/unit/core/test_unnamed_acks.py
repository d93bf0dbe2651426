"""Acks without references: each confirms the oldest unanswered packet, end or interrupt of its socket."""

import pytest

from liveavatar_gateway.core import messages as m


@pytest.fixture
def unnamed(rig):
    """Function that delivers an event under an id that LiveAvatar made up, as some builds do."""

    def tell(*kinds: type) -> None:
        for number, kind in enumerate(kinds):
            rig.tell(kind(m.Refs((f"minted-{number}",))))

    return tell


def sent_again(rig) -> bytes:
    """Return the audio that is sent again when the socket is lost now."""
    before = len(rig.packets)
    rig.lose()
    rig.reopen()
    if rig.commands[-1] in rig.cuts:
        rig.cleared()
    return b"".join(packet.pcm for packet in rig.packets[before:])


def test_a_late_ack_of_a_cut_utterance_confirms_nothing_of_the_next_one(rig, unnamed):
    rig.say("cut", 0.4)
    rig.interrupt()
    rig.run(1.1)
    following = rig.say("following", 0.4)
    unnamed(m.Appended)
    assert following.confirmed == 0
    assert sent_again(rig) == rig.pcm(0.4)


def test_a_late_ack_behind_the_answer_to_an_interrupt_confirms_nothing_of_the_next_one(rig, unnamed):
    rig.say("cut", 0.4)
    rig.interrupt()
    rig.say("following", 0.4)
    unnamed(m.Cleared, m.Appended)
    assert sent_again(rig) == rig.pcm(0.4)


def test_packets_that_an_interrupt_dropped_unacknowledged_take_no_acks_for_ever(rig, unnamed):
    rig.say("cut", 0.4)
    rig.interrupt()
    unnamed(m.Cleared)
    rig.run(1.1)
    following = rig.say("following", 0.4)
    unnamed(m.Appended)
    assert following.confirmed == following.cut
    assert sent_again(rig) == b""


def test_the_late_end_of_a_cut_utterance_confirms_nothing_of_the_next_one(rig, unnamed):
    rig.say("cut", 0.4)
    rig.interrupt()
    rig.run(1.1)
    following = rig.say("following", 0.4)
    unnamed(m.Appended, m.Committed)
    assert following.confirmed == 0
    unnamed(m.Appended, m.Committed)
    assert following.confirmed == following.cut


def test_a_late_ack_of_an_utterance_that_ended_confirms_nothing_of_the_next_one(rig, unnamed):
    """LiveAvatar reported the end of the utterance, and its acks come later."""
    first = rig.say("first", 0.2)
    rig.tell(m.SpeakStarted(m.Refs((first.upstream_id,))), m.SpeakEnded(m.Refs((first.upstream_id,))))
    second = rig.say("second", 0.4)
    unnamed(m.Appended)
    assert second.confirmed == 0
    assert sent_again(rig) == rig.pcm(0.4)


def test_an_unnamed_ack_is_for_the_oldest_packet_behind_those_that_named_theirs(rig, unnamed):
    utterance = rig.say("u1", 2.0)
    rig.acknowledge(1)
    unnamed(m.Appended)
    assert utterance.confirmed == sum(rig.packet_s()[:2]) * m.BYTE_RATE


def test_an_unnamed_ack_before_anything_was_sent_confirms_nothing_later(rig, unnamed):
    unnamed(m.Appended, m.Committed, m.Cleared)
    utterance = rig.say("u1", 0.4)
    assert utterance.confirmed == 0


def test_acks_of_a_lost_socket_that_never_came_are_not_awaited_from_the_next_one(rig, unnamed):
    rig.say("cut", 0.4)
    rig.interrupt()
    rig.run(1.1)
    rig.lose()
    rig.reopen()
    unnamed(m.Cleared)
    following = rig.say("following", 0.4)
    unnamed(m.Appended)
    assert following.confirmed == following.cut


def test_an_unnamed_answer_proves_that_an_interrupt_arrived(rig, unnamed):
    rig.say("u1", 0.4)
    rig.interrupt()
    unnamed(m.Appended, m.Committed, m.Cleared)
    sent_again(rig)
    assert len(rig.cuts) == 1


def test_an_unnamed_end_is_a_sign_of_its_utterance(rig, unnamed):
    """LiveAvatar has all audio before an end that it acknowledged, so a lost ack fails nothing."""
    utterance = rig.say("u1", 0.4)
    unnamed(m.Committed)
    assert utterance.accepted
    rig.run(30)
    assert rig.story("u1") == ["started", "completed"]


def test_an_unnamed_start_behind_a_lost_socket_makes_nobody_speak_a_later_utterance_again(rig, unnamed):
    """The lost socket had the first start, so each later one belongs to the utterance after the apparent one."""
    rig.say("before", 0.4)
    unnamed(m.Appended, m.Committed, m.SpeakStarted, m.SpeakEnded)
    rig.run(1)
    for name in ("u1", "u2", "u3"):
        if name == "u3":
            rig.lose()
            rig.reopen()
        rig.say(name, 0.03)
        unnamed(m.Appended, m.Committed)
    rig.run(0.1)
    unnamed(m.SpeakStarted, m.SpeakEnded, m.SpeakStarted, m.SpeakEnded)
    rig.run(30)
    assert rig.cuts == []
    assert [rig.story(name)[-1] for name in ("u1", "u2", "u3")] == ["completed"] * 3
