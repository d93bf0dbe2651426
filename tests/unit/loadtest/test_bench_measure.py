"""Figures of the benchmark: which write completed a packet, what falls into the window, what cannot be trusted."""

import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.measure import Packet, Quantiles, Recording, Usage, arrivals, figures, percentile
from bench.settings import BenchError
from bench.speech import Spoken, SpokenSession, Write

_CHUNK = 960  # 20 ms


def _session(*, utterances: int, chunks: int, start_s: float = 100.0, late_s: float = 0.0) -> SpokenSession:
    """Chunks of 20 ms, due every 20 ms."""
    writes = []
    for number in range(utterances * chunks):
        utterance, index = divmod(number, chunks)
        due_s = start_s + number * 0.02
        writes.append(Write(utterance, (index + 1) * _CHUNK, due_s, due_s + late_s))
    return SpokenSession("upstream-1", writes)


def _usage(**changes) -> Usage:
    usage = Usage(
        started_s=100.0,
        ended_s=110.0,
        measured_cpu_s=0.05,
        generator_cpu_s=1.0,
        emulator_cpu_s=0.5,
        generator_core_busy=0.3,
        measured_core_busy=0.1,
        measured_core_steal=0.01,
        load_core_steal=0.02,
    )
    return replace(usage, **changes)


@pytest.mark.parametrize(
    ("size_bytes", "newest"),
    [(1, 0), (_CHUNK - 1, 0), (_CHUNK, 0), (_CHUNK + 2, 1), (3 * _CHUNK, 2), (10 * _CHUNK, 9)],
)
def test_a_packet_is_completed_by_the_write_that_reaches_its_last_byte(size_bytes, newest):
    session = _session(utterances=1, chunks=10)
    (arrival,) = arrivals(session, [Packet(0, size_bytes, 200.0)])
    assert arrival.age_s == pytest.approx(200.0 - session.writes[newest].wrote_s)
    assert arrival.first


def test_positions_start_again_in_each_utterance():
    session = _session(utterances=3, chunks=5)
    packets = [Packet(n, size, 200.0) for n in range(3) for size in (2 * _CHUNK, 3 * _CHUNK)]
    found = arrivals(session, packets)
    assert [one.first for one in found] == [True, False] * 3
    newest = [session.writes[index].wrote_s for index in (1, 4, 6, 9, 11, 14)]
    assert [one.age_s for one in found] == pytest.approx([200.0 - at for at in newest])


@settings(deadline=None)  # the machine may be busy
@given(st.lists(st.integers(1, 3 * _CHUNK), max_size=30))
def test_no_byte_of_a_packet_is_newer_than_the_write_found_and_the_one_before_did_not_complete_it(sizes):
    session = _session(utterances=1, chunks=100)
    end = 0
    for size, arrival in zip(sizes, arrivals(session, [Packet(0, size, 200.0) for size in sizes]), strict=True):
        end += size
        index = next(n for n, write in enumerate(session.writes) if 200.0 - write.wrote_s == arrival.age_s)
        assert session.writes[index].end_byte >= end > session.writes[index].end_byte - _CHUNK


@pytest.mark.parametrize("packet", [Packet(0, 5 * _CHUNK + 2, 200.0), Packet(7, 2, 200.0)])
def test_bytes_that_nobody_spoke_are_an_error(packet):
    with pytest.raises(BenchError, match="more than were spoken"):
        arrivals(_session(utterances=1, chunks=5), [packet])


def test_percentiles_are_values_that_occurred():
    values = [float(value) for value in range(1, 101)]
    assert (percentile(values, 50), percentile(values, 99), percentile(values, 100)) == (50.0, 99.0, 100.0)
    assert percentile([7.0], 1) == percentile([7.0], 99) == 7.0
    assert math.isnan(percentile([], 50))


@settings(deadline=None)  # the machine may be busy
@given(st.lists(st.floats(0, 1e6), min_size=1), st.floats(0, 100))
def test_at_most_a_share_of_the_values_is_above_its_percentile(values, rank):
    ordered = sorted(values)
    found = percentile(ordered, rank)
    assert found in values
    assert sum(value > found for value in values) <= len(values) * (1 - rank / 100) + 1e-6


def test_quantiles_are_in_milliseconds():
    assert Quantiles.of([0.003, 0.001, 0.002]) == Quantiles(2.0, 3.0, 3)


def _ten_seconds() -> tuple[Spoken, Recording]:
    """Utterances of 1 s, each in packets of 400, 200, 200 and 200 ms that arrive 5 ms after their last chunk."""
    session = _session(utterances=12, chunks=50, start_s=99.0)
    packets = []
    for utterance in range(12):
        for size, last_chunk in ((20, 19), (10, 29), (10, 39), (10, 49)):
            wrote_s = session.writes[utterance * 50 + last_chunk].wrote_s
            packets.append(Packet(utterance, size * _CHUNK, wrote_s + 0.005))
    return Spoken([session], []), Recording(packets, underruns=2)


def test_figures_count_the_window_only():
    spoken, recording = _ten_seconds()
    found = figures("gateway", 20, spoken, [recording], _usage())
    assert found.audio_s == pytest.approx(10.0)
    assert found.cpu_ms_per_audio_s == pytest.approx(5.0)
    assert found.core_share == pytest.approx(0.005)
    assert found.first_packets.count == 10
    assert found.all_packets.count == 40
    assert found.all_packets.p50_ms == pytest.approx(5.0)
    assert found.first_packets.p99_ms == pytest.approx(5.0)
    assert found.packet_ms == pytest.approx(200.0)
    assert found.packets_per_s == pytest.approx(4.0)
    assert (found.underruns, found.sessions, found.lateness.count) == (2, 1, 500)
    assert not found.generator_was_bottleneck


def test_a_problem_of_the_speaker_is_no_measurement():
    spoken, recording = _ten_seconds()
    with pytest.raises(BenchError, match="2 problems, the first: it broke"):
        figures("gateway", 20, replace(spoken, problems=["it broke", "again"]), [recording], _usage())


def test_silence_is_no_measurement():
    spoken, _ = _ten_seconds()
    with pytest.raises(BenchError, match="lost"):
        figures("gateway", 20, spoken, [Recording([], 0)], _usage())
    with pytest.raises(BenchError, match="no audio arrived"):
        figures("gateway", 20, Spoken([SpokenSession("upstream-1")], []), [Recording([], 0)], _usage())


def test_lost_audio_is_no_measurement():
    spoken, recording = _ten_seconds()
    holed = Recording(recording.packets[:9] + recording.packets[10:], 0)
    with pytest.raises(BenchError, match="lost 9600 bytes of utterance 2"):
        figures("gateway", 20, spoken, [holed], _usage())


def test_audio_that_is_still_on_its_way_at_the_end_is_not_lost():
    spoken, recording = _ten_seconds()
    figures("gateway", 20, spoken, [Recording(recording.packets[:40], 0)], _usage())


@pytest.mark.parametrize(
    ("late_s", "busy", "bottleneck"),
    [(0.0, 0.5, False), (0.014, 0.9, False), (0.016, 0.5, True), (0.0, 0.91, True)],
)
def test_a_late_generator_or_a_full_core_is_the_bottleneck(late_s, busy, bottleneck):
    spoken = Spoken([_session(utterances=1, chunks=50, late_s=late_s)], [])
    recording = Recording([Packet(0, 50 * _CHUNK, 102.0)], 0)
    found = figures("gateway", 20, spoken, [recording], _usage(generator_core_busy=busy))
    assert found.generator_was_bottleneck is bottleneck


def test_a_recording_is_read_from_the_control_api():
    row = {
        "packets": [{"utterance": 0, "size_bytes": 19_200, "arrived_mono_s": 12.5, "gap_s": None}],
        "underruns": {"count": 3, "dry_s": 0.2},
    }
    assert Recording.parse(row) == Recording([Packet(0, 19_200, 12.5)], 3)
