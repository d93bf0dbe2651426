"""Packet scheduler against a simulated avatar: no underrun, and no lead above the largest."""

from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from liveavatar_gateway.core.speech.playout import PlayoutClock
from liveavatar_gateway.core.speech.scheduler import Decision, PacketScheduler, SchedulerConfig

_BYTE_RATE = 48_000
_STEP_S = 0.005
_START_DELAY_S = 0.2
_EPSILON_S = 1e-6


@dataclass
class Avatar:
    """Simulated avatar that starts 200 ms after its first packet, plays in real time, and records underruns."""

    starts_at_s: float | None = None
    got_s: float = 0.0
    dry_s: list[float] = field(default_factory=list)

    def take(self, seconds: float, now_s: float) -> None:
        if self.starts_at_s is None:
            self.starts_at_s = now_s + _START_DELAY_S
        elif now_s - self.starts_at_s > self.got_s + _EPSILON_S:
            self.dry_s.append(now_s)
            self.starts_at_s = now_s - self.got_s
        self.got_s += seconds


@dataclass
class Played:
    """Result of an utterance."""

    packets_s: list[float]
    times_s: list[float]
    leads_s: list[float]
    avatar: Avatar


def play(
    arrivals: list[tuple[float, float]], *, sealed_at_s: float, config: SchedulerConfig | None = None
) -> Played:
    """Run a source, as (time, seconds of audio), through the scheduler into an avatar, in steps of 5 ms."""
    config = config or SchedulerConfig()
    scheduler = PacketScheduler(config, byte_rate=_BYTE_RATE, frame_bytes=2)
    clock, played = PlayoutClock(start_delay_s=_START_DELAY_S), Played([], [], [], Avatar())
    buffered, last_s, pending, now_s = 0, 0.0, list(arrivals), 0.0
    while pending or buffered or now_s < sealed_at_s:
        assert now_s < 120, "the scheduler holds back audio without end"
        while pending and pending[0][0] <= now_s + _EPSILON_S:
            buffered += round(pending.pop(0)[1] * _BYTE_RATE / 2) * 2
            last_s = now_s
        sealed = now_s >= sealed_at_s
        while (decision := decide(scheduler, clock, buffered, sealed, now_s, last_s)).cut_bytes:
            buffered -= decision.cut_bytes
            seconds = decision.cut_bytes / _BYTE_RATE
            clock.send(seconds, now_s)
            played.avatar.take(seconds, now_s)
            played.packets_s.append(seconds)
            played.times_s.append(now_s)
            played.leads_s.append(clock.lead_s(now_s))
        now_s += _STEP_S
    return played


def decide(scheduler, clock, buffered, sealed, now_s, last_s) -> Decision:
    decision = scheduler.decide(
        buffered=buffered, sealed=sealed, lead_s=clock.lead_s(now_s), quiet_s=now_s - last_s
    )
    assert decision.cut_bytes <= buffered
    assert decision.cut_bytes % 2 == 0
    assert decision.wake_in_s is None or decision.wake_in_s > 0
    return decision


def real_time(seconds: float, chunk_s: float) -> list[tuple[float, float]]:
    """Return the chunks of a microphone, each at the time at which it has been spoken."""
    return [((index + 1) * chunk_s, chunk_s) for index in range(round(seconds / chunk_s))]


@pytest.mark.parametrize("chunk_s", [0.02, 0.1])
def test_a_real_time_source_never_lets_the_avatar_run_dry(chunk_s):
    played = play(real_time(20, chunk_s), sealed_at_s=20)
    assert played.avatar.dry_s == []
    assert played.avatar.got_s == pytest.approx(20)


@pytest.mark.parametrize("chunk_s", [0.02, 0.1])
def test_a_real_time_source_gets_a_first_packet_of_400_ms_and_later_ones_no_longer(chunk_s):
    played = play(real_time(10, chunk_s), sealed_at_s=10)
    assert played.packets_s[0] == pytest.approx(0.4)
    assert max(played.packets_s[1:-1]) <= 0.4


def test_a_real_time_source_does_not_make_a_packet_of_every_chunk():
    assert len(play(real_time(10, 0.02), sealed_at_s=10).packets_s) <= 55


@settings(max_examples=25, deadline=None)
@given(jitter_ms=st.lists(st.integers(0, 80), min_size=100, max_size=100))
def test_a_real_time_source_with_jitter_below_the_margin_never_lets_the_avatar_run_dry(jitter_ms):
    arrivals, at_s = [], 0.0
    for index, late_ms in enumerate(jitter_ms):
        at_s = max(at_s, (index + 1) * 0.05 + late_ms / 1000)
        arrivals.append((at_s, 0.05))
    assert play(arrivals, sealed_at_s=at_s + 0.01).avatar.dry_s == []


def test_a_burst_goes_out_as_400_ms_then_seconds_up_to_the_lead_and_the_rest_waits():
    scheduler = PacketScheduler(SchedulerConfig(), byte_rate=_BYTE_RATE, frame_bytes=2)
    clock, buffered, packets = PlayoutClock(start_delay_s=_START_DELAY_S), 10 * _BYTE_RATE, []
    while (decision := decide(scheduler, clock, buffered, True, 0.0, 0.0)).cut_bytes:
        buffered -= decision.cut_bytes
        clock.send(decision.cut_bytes / _BYTE_RATE, 0.0)
        packets.append(decision.cut_bytes / _BYTE_RATE)
    assert packets == [0.4, 1.0, 1.0]
    assert buffered == 7.6 * _BYTE_RATE
    assert decision.wake_in_s == pytest.approx(0.4), "the next second fits when the lead has fallen to 2 s"


def test_a_burst_is_played_without_a_gap_and_never_further_ahead_than_the_lead():
    played = play([(0.0, 20.0)], sealed_at_s=0.0)
    assert played.avatar.dry_s == []
    assert max(played.leads_s) <= 3.0 + _EPSILON_S
    assert played.packets_s[1:-1] == [1.0] * (len(played.packets_s) - 2)


def test_a_slow_source_gets_a_first_packet_again_each_time_it_ran_dry():
    """The source gives half of real time, so after each underrun a whole first packet is gathered again."""
    slow = [(index * 0.2, 0.1) for index in range(50)]
    played = play(slow, sealed_at_s=10)
    assert played.avatar.got_s == pytest.approx(5)
    restarts = [
        size for size, at_s in zip(played.packets_s, played.times_s, strict=True) if at_s in played.avatar.dry_s
    ]
    assert restarts, "a source of half real time must run dry"
    assert all(size == pytest.approx(0.4) for size in restarts[:-1])


def test_less_than_a_first_packet_is_sent_when_the_source_pauses():
    played = play([(0.0, 0.1)], sealed_at_s=5.0)
    assert played.packets_s == [pytest.approx(0.1)]
    assert played.times_s == [pytest.approx(0.25)]


def test_less_than_a_first_packet_is_sent_at_once_when_the_utterance_is_sealed():
    assert play([(0.0, 0.1)], sealed_at_s=0.0).times_s == [0.0]


def test_the_tail_of_a_sealed_utterance_is_sent_before_the_lead_runs_out():
    played = play([(0.0, 0.45)], sealed_at_s=0.3)
    assert played.packets_s == [pytest.approx(0.4), pytest.approx(0.05)]
    assert played.avatar.dry_s == []


def test_the_last_audio_of_a_source_that_pauses_without_sealing_is_sent_before_the_avatar_runs_dry():
    played = play([(0.0, 0.4), (0.1, 0.05)], sealed_at_s=5.0)
    assert played.avatar.got_s == pytest.approx(0.45)
    assert played.avatar.dry_s == []


def test_an_empty_buffer_asks_to_be_woken_by_the_first_byte_once_the_avatar_is_dry():
    scheduler = PacketScheduler(SchedulerConfig(), byte_rate=_BYTE_RATE, frame_bytes=2)
    assert scheduler.decide(buffered=0, sealed=False, lead_s=0.0, quiet_s=9.0) == Decision(wake_bytes=1)


def test_an_empty_buffer_is_looked_at_again_when_the_lead_falls_to_the_margin():
    scheduler = PacketScheduler(SchedulerConfig(), byte_rate=_BYTE_RATE, frame_bytes=2)
    far = scheduler.decide(buffered=0, sealed=False, lead_s=1.0, quiet_s=0.0)
    near = scheduler.decide(buffered=0, sealed=False, lead_s=0.1, quiet_s=0.0)
    assert (far.wake_bytes, far.wake_in_s) == (48_000, pytest.approx(0.8))
    assert (near.wake_bytes, near.wake_in_s) == (4_800, pytest.approx(0.1))


def test_below_the_margin_a_short_rest_waits_for_half_of_it():
    scheduler = PacketScheduler(SchedulerConfig(), byte_rate=_BYTE_RATE, frame_bytes=2)
    waits = scheduler.decide(buffered=960, sealed=False, lead_s=0.15, quiet_s=0.0)
    goes = scheduler.decide(buffered=960, sealed=False, lead_s=0.1, quiet_s=0.0)
    assert (waits.cut_bytes, waits.wake_bytes, waits.wake_in_s) == (0, 4_800, pytest.approx(0.05))
    assert goes.cut_bytes == 960


@settings(max_examples=200, deadline=None)
@given(
    frame_bytes=st.sampled_from([1, 2, 4, 8]),
    rate_hz=st.sampled_from([8_000, 11_025, 22_050, 24_000, 44_100, 48_000]),
    frames=st.integers(0, 500_000),
    sealed=st.booleans(),
    lead_s=st.floats(0, 5),
    quiet_s=st.floats(0, 5),
)
def test_every_decision_cuts_whole_samples_within_bounds_or_names_when_to_look_again(
    frame_bytes, rate_hz, frames, sealed, lead_s, quiet_s
):
    byte_rate, buffered = rate_hz * frame_bytes, frames * frame_bytes
    scheduler = PacketScheduler(SchedulerConfig(), byte_rate=byte_rate, frame_bytes=frame_bytes)
    decision = scheduler.decide(buffered=buffered, sealed=sealed, lead_s=lead_s, quiet_s=quiet_s)
    assert 0 <= decision.cut_bytes <= min(buffered, byte_rate)
    assert decision.cut_bytes % frame_bytes == 0
    if not decision.cut_bytes:
        assert decision.wake_in_s is not None or decision.wake_bytes <= byte_rate
    if not decision.cut_bytes and buffered:
        assert decision.wake_in_s is not None
        assert decision.wake_in_s > 0
