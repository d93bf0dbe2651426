"""Ids of incidents for callers, and lines of the log with these ids for operators."""

from structlog.testing import capture_logs

from liveavatar_gateway.incidents import Incidents, report_fault


class Clock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def test_the_same_fault_has_one_line_a_minute_to_which_its_id_leads():
    clock = Clock()
    incidents = Incidents(clock=clock)
    with capture_logs() as lines:
        first = incidents.report("upstream.foreign_answer", excerpt="page")
        again = incidents.report("upstream.foreign_answer", excerpt="page")
        other = incidents.report("upstream.foreign_answer", excerpt="another page")
        clock.now_s = 61.0
        later = incidents.report("upstream.foreign_answer", excerpt="page")
    assert first == again
    assert len({first, other, later}) == 3
    assert [line["incident"] for line in lines] == [first, other, later]


def test_texts_and_what_is_remembered_are_bounded():
    incidents = Incidents()
    with capture_logs() as lines:
        for number in range(1000):
            incidents.report("upstream.foreign_answer", excerpt=f"{number}" + "x" * 5000)
    assert len(lines) == 1000
    assert all(len(line["excerpt"]) == 500 for line in lines)
    assert len(incidents._remembered) <= 256


def test_a_fault_is_logged_each_time_with_its_traceback():
    fault = ValueError("broken")
    with capture_logs() as lines:
        ids = {report_fault("rpc.fault", fault), report_fault("rpc.fault", fault)}
    assert ids == {line["incident"] for line in lines}
    assert all(line["exc_info"] is fault for line in lines)
