"""Metrics of a session: few labels, and no value lost."""

import inspect

import pytest
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from liveavatar_gateway.core.errors import ReadyTimeout, UpstreamRejected, UpstreamStalled
from liveavatar_gateway.core.events import (
    Adopted,
    Ended,
    Reconnected,
    StateChanged,
    UtteranceEnded,
    UtteranceStarted,
)
from liveavatar_gateway.core.states import EndReason, Outcome, SessionState
from liveavatar_gateway.telemetry.guard import GUARDED
from liveavatar_gateway.telemetry.metrics import Metrics, SessionMeter, Snapshot, WarmCounts


class _Clock:
    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def _value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(name, labels)


def test_a_session_is_open_when_it_is_ready():
    metrics, clock = Metrics(), _Clock()
    meter = metrics.session_meter(clock)
    clock.now_s += 2.5
    meter.on_event(StateChanged(SessionState.CONNECTING, SessionState.CREATING), None)
    assert _value(metrics, "gateway_session_open_seconds_count") == 0
    meter.on_event(StateChanged(SessionState.READY, SessionState.CONNECTING), None)
    assert _value(metrics, "gateway_session_open_seconds_sum") == 2.5


def test_a_reconnect_is_no_second_opening():
    metrics, clock = Metrics(), _Clock()
    meter = metrics.session_meter(clock)
    meter.on_event(StateChanged(SessionState.READY, SessionState.CONNECTING), None)
    meter.on_event(StateChanged(SessionState.READY, SessionState.RECONNECTING), None)
    meter.on_event(Reconnected(attempt_count=2, gap_s=0.5, resent_bytes=96_000), None)
    assert _value(metrics, "gateway_session_open_seconds_count") == 1
    assert _value(metrics, "gateway_upstream_reconnect_seconds_sum") == 0.5
    assert _value(metrics, "gateway_upstream_resent_bytes_total") == 96_000


def test_a_session_that_another_process_opened_is_not_opened_here():
    metrics = Metrics()
    meter = metrics.session_meter()
    meter.on_event(Adopted(gap_s=3.0), None)
    meter.on_event(StateChanged(SessionState.READY, SessionState.RECONNECTING), None)
    assert _value(metrics, "gateway_session_open_seconds_count") == 0


def test_the_time_to_started_is_counted_from_the_begin_of_its_own_utterance():
    metrics, clock = Metrics(), _Clock()
    meter = metrics.session_meter(clock)
    meter.utterance_begun("first")
    clock.now_s += 1
    meter.utterance_begun("second")
    clock.now_s += 0.25
    meter.on_event(UtteranceStarted("second"), None)
    assert _value(metrics, "gateway_utterance_start_seconds_sum") == 0.25


def test_an_utterance_that_ends_unheard_has_no_time_to_started():
    metrics = Metrics()
    meter = metrics.session_meter()
    meter.utterance_begun("cut")
    meter.on_event(UtteranceEnded("cut", Outcome.INTERRUPTED, 0.0), None)
    meter.on_event(UtteranceStarted("cut"), None)
    assert _value(metrics, "gateway_utterance_start_seconds_count") == 0
    assert _value(metrics, "gateway_utterances_total", outcome="interrupted") == 1


def test_silence_of_liveavatar_counts_as_its_error_and_what_it_told_does_not_count_twice():
    metrics = Metrics()
    meter = metrics.session_meter()
    meter.on_event(UtteranceEnded("a", Outcome.FAILED, 0.0, UpstreamStalled("no sign", utterance_id="a")), None)
    meter.on_event(Ended(ReadyTimeout("not ready", timeout_s=1)), EndReason.UPSTREAM_FAILED)
    # A refusal over REST was counted where it came in.
    meter.on_event(Ended(UpstreamRejected("no")), EndReason.CREATE_FAILED)
    assert _value(metrics, "gateway_upstream_errors_total", reason="UPSTREAM_STALLED") == 1
    assert _value(metrics, "gateway_upstream_errors_total", reason="READY_TIMEOUT") == 1
    assert _value(metrics, "gateway_upstream_errors_total", reason=UpstreamRejected.reason) is None
    assert _value(metrics, "gateway_sessions_ended_total", reason="CREATE_FAILED") == 1


def test_states_reasons_and_outcomes_are_there_before_they_happen():
    metrics = Metrics()
    assert all(_value(metrics, "gateway_sessions_ended_total", reason=one.value) == 0 for one in EndReason)
    assert all(_value(metrics, "gateway_utterances_total", outcome=one.value) == 0 for one in Outcome)


def test_a_look_sets_every_gauge_and_puts_states_without_sessions_back_to_nothing():
    metrics = Metrics()
    look = {"used_permits": 3, "permits": 5, "waiting": 1, "stops_pending": 2, "draining": True, "tasks": 7}
    metrics.update(Snapshot(sessions={SessionState.READY: 3}, tenants={"acme": 2, "beta": 1}, **look))
    metrics.update(Snapshot(sessions={SessionState.ENDING: 1}, tenants={"acme": 1}, **look))
    assert _value(metrics, "gateway_sessions", state="ready") == 0
    assert _value(metrics, "gateway_sessions", state="ending") == 1
    assert _value(metrics, "gateway_tenant_sessions", tenant="acme") == 1
    assert _value(metrics, "gateway_tenant_sessions", tenant="beta") is None
    shown = [
        _value(metrics, f"gateway_{name}")
        for name in (
            "permits_used",
            "permits_limit",
            "permits_waiting",
            "upstream_stops_pending",
            "draining",
            "asyncio_tasks",
        )
    ]
    assert shown == [3, 5, 1, 2, 1, 7]


def test_open_calls_are_those_that_began_and_did_not_end():
    metrics = Metrics()
    metrics.rpc_began("S/M")
    metrics.rpc_began("S/M")
    metrics.rpc_ended("S/M", "OK")
    assert _value(metrics, "gateway_rpcs_open", method="S/M") == 1
    assert _value(metrics, "gateway_rpcs_total", method="S/M", code="OK") == 1


def test_packets_interrupts_and_lag_are_counted():
    metrics = Metrics()
    metrics.packet_sent(48_000)
    metrics.packet_sent(960)
    metrics.interrupted(0.2)
    metrics.loop_lagged(0.004)
    assert _value(metrics, "gateway_upstream_packets_total") == 2
    assert _value(metrics, "gateway_upstream_audio_bytes_total") == 48_960
    assert _value(metrics, "gateway_interrupt_seconds_count") == 1
    assert _value(metrics, "gateway_event_loop_lag_seconds_sum") == 0.004


def test_no_label_can_take_a_value_that_callers_or_liveavatar_choose():
    """Few labels, each from a closed list: what is counted by id would grow forever."""
    metrics = Metrics()
    families = text_string_to_metric_families(generate_latest(metrics.registry).decode())
    labels = {
        label
        for family in families
        if family.name.startswith("gateway_")
        for sample in family.samples
        for label in sample.labels
    }
    assert labels <= {"state", "reason", "outcome", "way", "method", "code", "le", "version", "change"}


def test_keep_alives_and_looks_into_rooms_are_counted():
    metrics = Metrics()
    assert _value(metrics, "gateway_upstream_keep_alives_total", way="rest", outcome="postponed") == 0
    metrics.kept_alive("rest", "sent")
    assert _value(metrics, "gateway_upstream_keep_alives_total", way="rest", outcome="sent") == 1
    metrics.looked_into_room("nobody")
    assert _value(metrics, "gateway_room_looks_total", outcome="nobody") == 1


def test_listeners_their_rooms_and_their_audio_are_counted():
    metrics = Metrics()
    assert _value(metrics, "gateway_room_joins_total", outcome="failed") == 0
    metrics.listener_opened()
    metrics.listener_opened()
    metrics.listener_closed()
    metrics.joined_room("joined")
    metrics.joined_room("refused")
    metrics.user_audio(1.5, 0.25)
    assert _value(metrics, "gateway_listeners") == 1
    assert _value(metrics, "gateway_rooms_joined") == 1
    assert _value(metrics, "gateway_room_joins_total", outcome="refused") == 1
    assert _value(metrics, "gateway_user_audio_seconds_total", outcome="sent") == 1.5
    assert _value(metrics, "gateway_user_audio_seconds_total", outcome="dropped") == 0.25
    metrics.left_room()
    assert _value(metrics, "gateway_rooms_joined") == 0


def test_two_gateways_in_one_process_do_not_share_metrics():
    one, other = Metrics(), Metrics()
    one.packet_sent(2)
    assert _value(other, "gateway_upstream_packets_total") == 0


def test_what_was_taken_over_and_whether_the_registry_works_is_counted():
    metrics = Metrics()
    assert _value(metrics, "gateway_sessions_taken_over_total", outcome="adopted") == 0
    metrics.taken_over(adopted=True)
    metrics.taken_over(adopted=False)
    metrics.taken_over(adopted=False)
    assert _value(metrics, "gateway_sessions_taken_over_total", outcome="adopted") == 1
    assert _value(metrics, "gateway_sessions_taken_over_total", outcome="swept") == 2
    assert _value(metrics, "gateway_registry_available") == 1
    metrics.registry_works(works=False)
    assert _value(metrics, "gateway_registry_available") == 0


def _recording(kind: type) -> list[str]:
    methods = inspect.getmembers(kind, inspect.isfunction)
    return [name for name, method in methods if not name.startswith("_") and name != "session_meter"]


@pytest.mark.parametrize("kind", [Metrics, SessionMeter])
def test_every_method_that_records_is_guarded(kind):
    for name in _recording(kind):
        assert hasattr(getattr(kind, name), GUARDED), name


def test_a_metric_that_cannot_be_recorded_raises_nothing_and_is_logged_once(capsys):
    class Broken:
        def inc(self, _: int = 1) -> None:
            raise ZeroDivisionError

    metrics = Metrics()
    metrics._packets = Broken()
    metrics.packet_sent(10)
    metrics.packet_sent(10)
    assert capsys.readouterr().out.count("telemetry.failed") == 1


def test_refusals_by_a_quota_are_counted_by_tenant_and_quota():
    metrics = Metrics()
    metrics.quota_refused("acme", "max_sessions")
    assert _value(metrics, "gateway_quota_refusals_total", tenant="acme", quota="max_sessions") == 1


def test_warm_sessions_are_shown_by_profile_and_a_removed_profile_is_not():
    metrics = Metrics()
    look = {"used_permits": 3, "permits": 5, "waiting": 1, "stops_pending": 2, "draining": True, "tasks": 7}
    metrics.warm_profile("desk")
    assert _value(metrics, "gateway_warm_taken_total", profile="desk") == 0
    warm = {"desk": WarmCounts(starting=1, ready=2, credits_used=2.5)}
    metrics.update(Snapshot(sessions={}, tenants={}, warm=warm, reservations=4, **look))
    assert _value(metrics, "gateway_warm_sessions", profile="desk", state="starting") == 1
    assert _value(metrics, "gateway_warm_sessions", profile="desk", state="ready") == 2
    assert _value(metrics, "gateway_warm_credits_last_hour", profile="desk") == 2.5
    assert _value(metrics, "gateway_reservations_waiting") == 4
    metrics.update(Snapshot(sessions={}, tenants={}, **look))
    assert _value(metrics, "gateway_warm_sessions", profile="desk", state="ready") is None
    metrics.warm_taken("desk")
    metrics.warm_missed("desk")
    metrics.warm_retired("desk", "idle")
    metrics.reservation("made")
    assert [
        _value(metrics, "gateway_warm_taken_total", profile="desk"),
        _value(metrics, "gateway_warm_missed_total", profile="desk"),
        _value(metrics, "gateway_warm_retired_total", profile="desk", reason="idle"),
        _value(metrics, "gateway_reservations_total", outcome="made"),
    ] == [1, 1, 1, 1]


def test_data_messages_are_counted():
    metrics = Metrics()
    metrics.room_data("received")
    metrics.room_data("dropped", 7)
    assert _value(metrics, "gateway_room_data_messages_total", outcome="received") == 1
    assert _value(metrics, "gateway_room_data_messages_total", outcome="dropped") == 7
    assert _value(metrics, "gateway_room_data_messages_total", outcome="sent") == 0
