"""Life of a session: its events and their times."""

import itertools
from typing import Any

import orjson
import pytest

from liveavatar_emulator.config import Settings
from liveavatar_emulator.effects import ChargeMinute, Close, Effect, Send, SessionEnded
from liveavatar_emulator.protocol import (
    Command,
    Interrupt,
    Invalid,
    KeepAlive,
    Speak,
    SpeakEnd,
    StartListening,
    StopListening,
    StreamFormat,
    Unknown,
)
from liveavatar_emulator.recording import AudioBudget, Recording
from liveavatar_emulator.session import Session
from liveavatar_emulator.states import Phase

SECOND = bytes(48_000)


class Talk:
    """A session and what it said, with its clock at 0."""

    def __init__(self, *, limit_s: float = 3600, billed: bool = False, **knobs: Any) -> None:
        self.settings = Settings(**{"ready_delay_ms": 1000, **knobs})
        self.recording = Recording(started_mono_s=0.0, keep_bytes=10**9, budget=AudioBudget(10**9))
        numbers = itertools.count(1)
        self.session = Session(
            settings=self.settings,
            recording=self.recording,
            fresh_id=lambda: f"s-{next(numbers)}",
            now_s=0.0,
            limit_s=limit_s,
            billed=billed,
        )

    @classmethod
    def ready(cls, **knobs: Any) -> "Talk":
        talk = cls(**{"ready_delay_ms": 0, **knobs})
        talk.session.attach(0.0)
        assert talk.session.phase is Phase.READY
        return talk

    def say(self, command: Command, now_s: float) -> list[str]:
        return told(self.session.command(command, now_s))

    def wait(self, now_s: float) -> list[str]:
        return told(self.session.advance(now_s))


def event(effect: Effect) -> dict[str, Any]:
    assert isinstance(effect, Send)
    return orjson.loads(effect.frame)


def told(effects: list[Effect]) -> list[str]:
    """Effects in short: events without their `agent.`, with the state they tell."""
    words = []
    for effect in effects:
        match effect:
            case Send():
                body = event(effect)
                state = body.get("state") or body.get("new_state")
                words.append(body["type"].removeprefix("agent.") + (f"={state}" if state else ""))
            case Close(code, _):
                words.append(f"close {code}")
            case SessionEnded(reason, _):
                words.append(f"over {reason}")
            case ChargeMinute():
                words.append("minute")
    return words


def test_readiness_comes_a_delay_after_the_first_socket():
    talk = Talk(ready_delay_ms=2500)
    assert told(talk.session.attach(10.0)) == ["session.state_updated=new"]
    assert talk.wait(12.4) == []
    assert talk.wait(12.5) == ["session.state_updated=connected"]


def test_commands_before_readiness_vanish_and_are_counted():
    talk = Talk()
    talk.session.attach(0.0)
    assert talk.say(Speak("u1", SECOND), 0.5) == []
    assert talk.say(SpeakEnd("u1", None), 0.5) == []
    assert talk.recording.commands_before_ready == 2
    assert talk.recording.received_bytes == 0
    assert talk.wait(60.0) == ["session.state_updated=connected"]


def test_a_session_that_never_says_connected_is_usable_all_the_same():
    talk = Talk(never_connected=True)
    talk.session.attach(0.0)
    assert talk.wait(1.0) == []
    assert talk.say(Speak("u1", SECOND), 1.1) == ["audio_buffer_appended"]


def test_one_utterance_tells_the_whole_story_in_order():
    talk = Talk.ready()
    assert talk.say(Speak("u1", SECOND), 1.0) == ["audio_buffer_appended"]
    assert talk.wait(1.2) == ["state_updated=talking", "speak_started"]
    assert talk.say(Speak("u1", SECOND), 1.3) == ["audio_buffer_appended"]
    assert talk.say(SpeakEnd("u1", None), 1.4) == ["audio_buffer_committed"]
    assert talk.wait(3.3) == ["speak_ended", "state_updated=idle"]


def test_event_ids_rise_in_the_order_of_sending():
    talk = Talk.ready(start_delay_ms=0)
    effects = talk.session.command(Speak("u1", SECOND), 1.0)
    ids = [int(event(effect)["event_id"].removeprefix("s-")) for effect in effects]
    assert ids == sorted(ids)
    assert len(ids) == 3


def test_an_utterance_cites_its_first_chunks_id():
    talk = Talk.ready()
    talk.session.command(Speak("c1", SECOND), 1.0)
    talk.session.command(Speak("c2", SECOND), 1.1)
    _, started = talk.session.advance(1.2)
    assert event(started)["source_event_id"] == "c1"


def test_interrupt_is_acked_first_and_the_pose_changes_last():
    talk = Talk.ready()
    talk.say(Speak("u1", SECOND), 1.0)
    talk.wait(1.5)
    assert talk.say(Interrupt("i1"), 1.5) == []
    cleared, interrupted, idle = talk.session.advance(1.69)
    assert (event(cleared)["type"], event(cleared)["source_event_id"]) == ("agent.audio_buffer_cleared", "i1")
    assert (event(interrupted)["type"], event(interrupted)["source_event_id"]) == ("agent.speak_interrupted", "u1")
    assert event(idle)["new_state"] == "idle"


def test_interrupt_records_what_was_heard_until_it_took_effect():
    talk = Talk.ready(interrupt_ack_ms=250)
    talk.say(Speak("u1", SECOND * 5), 1.0)
    talk.wait(2.2)
    talk.say(Interrupt("i1"), 2.2)
    talk.wait(3.0)
    (seen,) = talk.recording.interrupts
    assert (seen.received_at_s, seen.effective_at_s, seen.utterance) == (2.2, 2.45, 0)
    assert seen.played_bytes == pytest.approx(48_000 * 1.25, abs=2)


def test_interrupt_while_idle_is_only_acked():
    talk = Talk.ready()
    talk.say(Interrupt(None), 1.0)
    assert talk.wait(2.0) == ["audio_buffer_cleared"]


def test_interrupt_ends_the_listening_pose():
    talk = Talk.ready()
    talk.say(StartListening(None), 1.0)
    talk.say(Interrupt(None), 1.0)
    assert talk.wait(2.0) == ["audio_buffer_cleared", "state_updated=idle"]


def test_only_the_head_of_the_queue_is_reported_as_interrupted():
    talk = Talk.ready()
    for name in ("a", "b"):
        talk.say(Speak(name, SECOND), 1.0)
        talk.say(SpeakEnd(name, None), 1.0)
    talk.wait(1.5)
    talk.say(Interrupt("i"), 1.5)
    assert talk.wait(9.0) == ["audio_buffer_cleared", "speak_interrupted", "state_updated=idle"]
    assert [u.playback.outcome.value for u in talk.recording.utterances] == ["interrupted", "interrupted"]


def test_audio_of_a_cut_utterance_is_counted_when_it_still_comes():
    talk = Talk.ready()
    talk.say(Speak("u1", SECOND), 1.0)
    talk.say(Interrupt("i1"), 1.1)
    talk.say(Speak("u1", bytes(960)), 1.15)
    talk.say(Speak("u2", bytes(960)), 1.16)
    assert (talk.recording.packets_after_interrupt, talk.recording.bytes_after_interrupt) == (1, 960)
    assert len(talk.recording.utterances) == 2


def test_queued_utterances_go_idle_between_each_other():
    talk = Talk.ready()
    for name in ("a", "b"):
        talk.say(Speak(name, SECOND), 1.0)
        talk.say(SpeakEnd(name, None), 1.0)
    one = ["state_updated=talking", "speak_started", "speak_ended", "state_updated=idle"]
    assert talk.wait(9.0) == one + one


def test_listening_goes_from_idle_and_back():
    talk = Talk.ready()
    assert talk.say(StartListening(None), 1.0) == ["state_updated=listening"]
    assert talk.say(StopListening(None), 1.1) == ["state_updated=idle"]


def test_listening_commands_in_the_wrong_pose_are_silent():
    talk = Talk.ready()
    assert talk.say(StopListening(None), 1.0) == []
    talk.say(Speak("u1", SECOND), 1.0)
    talk.wait(1.3)
    assert talk.say(StartListening(None), 1.3) == []


def test_a_knob_makes_the_wrong_pose_a_warning():
    talk = Talk.ready(warn_wrong_pose=True)
    assert talk.say(StopListening(None), 1.0) == ["warning"]


@pytest.mark.parametrize("command", [Invalid("x", "agent.speak", "audio is empty"), Unknown("x", "agent.dance")])
def test_what_is_not_understood_draws_an_error_that_cites_it(command):
    talk = Talk.ready()
    (effect,) = talk.session.command(command, 1.0)
    assert event(effect)["error"]["type"] == "invalid_request_error"
    assert event(effect)["error"]["event_id"] == "x"


def test_the_undocumented_start_frame_is_ignored_unless_strict():
    assert Talk.ready().say(StreamFormat(None), 1.0) == []
    assert Talk.ready(strict=True).say(StreamFormat(None), 1.0) == ["error"]


def test_an_underrun_is_silent_by_default_and_the_utterance_plays_on():
    talk = Talk.ready()
    talk.say(Speak("u1", SECOND), 1.0)
    talk.wait(1.2)
    assert talk.wait(3.0) == []
    assert talk.say(Speak("u1", SECOND), 3.0) == ["audio_buffer_appended"]
    assert talk.recording.underruns == 1
    assert talk.recording.dry_s == pytest.approx(0.8)


def test_a_knob_shows_an_underrun_as_idle_and_back():
    talk = Talk.ready(idle_on_underrun=True)
    talk.say(Speak("u1", SECOND), 1.0)
    talk.wait(1.2)
    assert talk.wait(3.0) == ["state_updated=idle"]
    assert talk.say(Speak("u1", SECOND), 3.0) == ["state_updated=talking", "audio_buffer_appended"]


@pytest.mark.parametrize(("ended_by_client", "awaits_speak_end"), [(False, True), (True, False)])
def test_the_end_says_whether_speech_was_left_without_speak_end(ended_by_client, awaits_speak_end):
    talk = Talk.ready()
    talk.say(Speak("u1", SECOND), 1.0)
    if ended_by_client:
        talk.say(SpeakEnd("u1", None), 1.5)
    talk.wait(5.0)
    (over,) = [effect for effect in talk.session.end("USER_CLOSED", 6.0) if isinstance(effect, SessionEnded)]
    assert over.speak_end_missing is awaits_speak_end


def test_strict_mode_calls_an_underrun_video_starvation():
    talk = Talk.ready(strict=True)
    talk.say(Speak("u1", SECOND), 1.0)
    error, _ = talk.session.command(Speak("u1", SECOND), 5.0)[-2:]
    assert event(error)["error"]["type"] == "video_starvation"


def test_older_builds_also_say_idle_started_and_ended():
    talk = Talk.ready(idle_events=True)
    talk.say(Speak("u1", SECOND), 1.0)
    assert talk.wait(1.2) == ["state_updated=talking", "idle_ended", "speak_started"]


def test_classic_follows_speak_interrupted_with_speak_ended():
    talk = Talk.ready(profile="classic")
    talk.say(Speak("u1", SECOND), 1.0)
    assert talk.wait(1.5) == ["speak_started"]
    talk.say(Interrupt("i1"), 1.5)
    assert talk.wait(2.0) == ["speak_interrupted", "speak_ended"]


def test_acks_only_shows_speech_as_pose_alone():
    talk = Talk.ready(profile="acks_only")
    talk.say(Speak("u1", SECOND), 1.0)
    talk.say(SpeakEnd("u1", None), 1.0)
    assert talk.wait(9.0) == ["state_updated=talking", "state_updated=idle"]


def test_silence_for_the_idle_time_ends_the_session():
    talk = Talk.ready(idle_s=30)
    assert talk.wait(29.9) == []
    ending = ["session.stopped", "session.state_updated=disconnected", "close 1000", "over IDLE_TIMEOUT"]
    assert talk.wait(30.0) == ending


def test_socket_and_rest_keep_alives_reset_the_same_timer():
    talk = Talk.ready(idle_s=30)
    talk.say(KeepAlive(None), 20.0)
    talk.session.keep_alive(40.0)
    assert talk.wait(69.9) == []
    assert talk.wait(70.0)[-1] == "over IDLE_TIMEOUT"
    assert talk.recording.keepalives == [(20.0, "socket"), (40.0, "rest")]


def test_audio_counts_as_activity():
    talk = Talk.ready(idle_s=30)
    talk.say(Speak("u1", SECOND), 20.0)
    assert "over IDLE_TIMEOUT" not in talk.wait(49.9)
    assert talk.wait(50.0)[-1] == "over IDLE_TIMEOUT"


def test_an_abandoned_session_is_reaped():
    talk = Talk.ready(reap_s=200)
    assert talk.session.detach(10.0) == []
    assert talk.wait(209.9) == []
    assert talk.wait(210.0)[-1] == "over ZOMBIE_SESSION_REAP"


def test_a_session_nobody_ever_attached_to_is_reaped_too():
    assert Talk(reap_s=200).wait(200.0)[-1] == "over ZOMBIE_SESSION_REAP"


def test_a_closed_socket_ends_nothing_and_the_queue_plays_on():
    talk = Talk.ready()
    talk.say(Speak("u1", SECOND), 1.0)
    talk.say(SpeakEnd("u1", None), 1.0)
    talk.session.detach(1.1)
    talk.wait(9.0)
    assert talk.session.phase is Phase.READY
    assert talk.recording.utterances[0].playback.outcome.value == "ended"


def test_a_second_socket_is_told_connected_again():
    talk = Talk.ready()
    talk.session.detach(1.0)
    assert told(talk.session.attach(2.0)) == ["session.state_updated=connected"]


def test_a_knob_keeps_reattachment_silent():
    talk = Talk.ready(reconnect_emits_connected=False)
    talk.session.detach(1.0)
    assert told(talk.session.attach(2.0)) == []


def test_readiness_goes_on_while_the_first_socket_is_gone():
    talk = Talk(reconnect_emits_connected=False)
    talk.session.attach(0.0)
    talk.session.detach(0.5)
    assert told(talk.session.attach(3.0)) == ["session.state_updated=connected"]


def test_the_duration_limit_closes_the_session():
    talk = Talk.ready(limit_s=60)
    talk.say(KeepAlive(None), 59.0)
    assert talk.wait(60.0)[-2:] == ["close 1000", "over MAX_DURATION_REACHED"]


def test_in_mute_mode_the_limit_is_silent_and_leaves_the_socket_open():
    talk = Talk.ready(limit_s=60, max_duration_mode="mute")
    talk.say(Speak("u1", SECOND * 10), 59.0)
    talk.wait(59.9)
    assert talk.wait(60.0) == ["over MAX_DURATION_REACHED"]
    assert talk.say(Speak("u1", SECOND), 61.0) == []
    assert talk.recording.commands_after_end == 1
    assert talk.wait(9999.0) == []


def test_minutes_fall_due_one_by_one():
    talk = Talk.ready(billed=True)
    for minute in (1, 2, 3):
        talk.session.keep_alive(minute * 60 - 1.0)
        assert talk.wait(minute * 60.0) == ["minute"]


def test_a_session_of_exactly_one_minute_costs_one_minute():
    assert "minute" not in Talk.ready(billed=True, limit_s=60).wait(60.0)


def test_an_end_is_told_once():
    talk = Talk.ready()
    assert told(talk.session.end("USER_CLOSED", 5.0))[-1] == "over USER_CLOSED"
    assert talk.session.end("USER_CLOSED", 6.0) == []
    assert talk.session.next_due_s() is None


def test_oversize_frames_close_the_socket_or_vanish():
    assert told(Talk.ready().session.oversize(1.0)) == ["close 1009"]
    talk = Talk.ready(oversize="drop")
    assert talk.session.oversize(1.0) == []
    assert talk.recording.oversize_packets == 1


def test_changed_settings_reach_a_running_session():
    talk = Talk(ready_delay_ms=5000)
    talk.session.attach(0.0)
    talk.session.configure(talk.settings.model_copy(update={"ready_delay_ms": 1000}), 0.5)
    assert talk.wait(1.0) == ["session.state_updated=connected"]


def test_a_knob_bounds_the_audio_that_waits():
    talk = Talk.ready(max_queued_s=2)
    assert talk.say(Speak("u1", SECOND), 1.0) == ["audio_buffer_appended"]
    assert talk.say(Speak("u1", SECOND), 1.0) == ["audio_buffer_appended"]
    assert talk.say(Speak("u1", SECOND), 1.1) == ["error"]
    assert talk.recording.refused_packets == 1
    assert "audio_buffer_appended" in talk.say(Speak("u1", SECOND), 2.2)


def test_a_knob_drops_the_socket_after_some_packets_once():
    talk = Talk.ready(drop_after_packets=2, drop_code=4000)
    assert talk.say(Speak("u1", SECOND), 1.0) == ["audio_buffer_appended"]
    assert talk.say(Speak("u1", SECOND), 1.0) == ["audio_buffer_appended", "close 4000"]
    assert talk.say(Speak("u1", SECOND), 1.0) == ["audio_buffer_appended"]


def test_a_socket_that_comes_too_late_is_closed():
    talk = Talk.ready()
    talk.session.end("USER_CLOSED", 1.0)
    assert told(talk.session.attach(1.0)) == ["close 1000"]


def test_a_late_speak_ended_comes_once_when_it_is_due():
    talk = Talk.ready(interrupt_ack_ms=0, start_delay_ms=0, late_speak_ended_ms=300)
    talk.say(Speak("u1", SECOND), 1.0)
    talk.say(Interrupt("i1"), 1.5)
    assert talk.wait(1.799) == []
    assert talk.wait(1.8) == ["speak_ended"]
    assert talk.wait(100.0) == []


def test_a_hosted_session_is_ready_without_a_socket_and_is_not_reaped():
    session = Session(
        settings=Settings(ready_delay_ms=1000, reap_s=5, idle_s=50),
        recording=Recording(started_mono_s=0.0, keep_bytes=0, budget=AudioBudget(0)),
        fresh_id=lambda: "x",
        now_s=0.0,
        limit_s=3600,
        billed=False,
        has_connector=True,
    )
    session.advance(1.0)
    assert session.phase is Phase.READY
    assert told(session.advance(49.9)) == []
    assert told(session.advance(50.0))[-1] == "over IDLE_TIMEOUT"


def test_a_hosted_agent_speaks_whole_utterances_and_can_be_cut():
    recording = Recording(started_mono_s=0.0, keep_bytes=10**9, budget=AudioBudget(10**9))
    session = Session(
        settings=Settings(ready_delay_ms=1000, interrupt_ack_ms=100),
        recording=recording,
        fresh_id=lambda: "x",
        now_s=0.0,
        limit_s=3600,
        billed=False,
        has_connector=True,
    )
    session.say(SECOND, 0.5)
    session.hush(0.5)
    assert recording.utterances == [], "it is not ready"
    session.hush(1.0)
    assert recording.interrupts == [], "it is silent"
    session.say(SECOND, 1.0)
    session.advance(5.0)
    session.say(SECOND, 5.0)
    session.hush(5.5)
    session.advance(10.0)
    assert [one.playback.received_bytes for one in recording.utterances] == [len(SECOND)] * 2
    (cut,) = recording.interrupts
    assert (cut.utterance, 0 < cut.played_bytes < len(SECOND)) == (1, True)
    session.end("USER_CLOSED", 10.0)
    session.say(SECOND, 11.0)
    assert len(recording.utterances) == 2
