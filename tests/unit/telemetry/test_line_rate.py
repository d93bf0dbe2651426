"""Rate of audit lines: what a caller repeats is one line with a count, and acts are kept."""

import asyncio

from liveavatar_gateway.telemetry.line_rate import LineRate


class Lines:
    def __init__(self, **limits: int) -> None:
        self.now_s = 0.0
        self.written: list[tuple[str, str, dict[str, object]]] = []
        self.rate = LineRate(
            lambda *line: self.written.append(line), **{"refusals": 2, **limits}, clock=lambda: self.now_s
        )

    def refuse(self, caller: str, number: int = 0) -> None:
        self.rate.write(caller, "call.refused", "NO", {"number": number}, is_act=False)


def test_refusals_above_the_limit_are_one_line_with_their_number_and_the_last_fields():
    lines = Lines()
    for number in range(5):
        lines.refuse("a", number)
    assert [fields["number"] for *_, fields in lines.written] == [0, 1]
    lines.now_s = 1.0
    lines.refuse("a", 5)
    assert lines.written[2:] == [
        ("call.refused", "NO", {"number": 4, "repeated": 3}),
        ("call.refused", "NO", {"number": 5}),
    ]


def test_callers_and_acts_have_limits_of_their_own():
    lines = Lines()
    for _ in range(5):
        lines.refuse("a")
    lines.refuse("b")
    lines.rate.write("a", "session.open", "OK", {}, is_act=True)
    assert len(lines.written) == 4


def test_all_callers_together_have_a_limit():
    lines = Lines(total=3)
    for caller in range(2000):
        lines.refuse(str(caller))
    assert len(lines.written) == 3
    lines.rate.flush()
    assert len(lines.written) <= 3 + 1001
    assert sum(fields.get("repeated", 1) for *_, fields in lines.written) == 2000


def test_refusals_of_many_callers_displace_no_act():
    lines = Lines(total=3)
    for caller in range(2000):
        lines.refuse(str(caller))
    for number in range(4):
        lines.rate.write(f"late-{number}", "session.open", "OK", {"number": number}, is_act=True)
    assert [fields["number"] for event, _, fields in lines.written if event == "session.open"] == [0, 1, 2]
    lines.rate.flush()
    opens = [fields for event, _, fields in lines.written if event == "session.open"]
    assert opens[3:] == [{"number": 3, "repeated": 1}]


async def test_what_was_left_out_is_written_although_no_other_line_follows():
    lines = Lines()
    for _ in range(3):
        lines.refuse("a")
    async with asyncio.timeout(10):
        while len(lines.written) < 3:
            await asyncio.sleep(0.05)
    assert lines.written[2][2]["repeated"] == 1
