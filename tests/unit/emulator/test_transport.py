"""Throttled connection: reading rates and pauses."""

from liveavatar_emulator.clock import ManualClock
from liveavatar_emulator.transport import ClientConnection, _Transport


class FakeTransport:
    """A transport that remembers whether it reads."""

    def __init__(self) -> None:
        self.reading = True

    def is_closing(self) -> bool:
        return False

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def get_extra_info(self, _name: str) -> None:
        return None


class Parser(ClientConnection):
    """A connection whose parser only collects data."""

    def __init__(self) -> None:
        self._unparsed, self._rate, self._clock, self._timer = bytearray(), None, None, None
        self.raw = FakeTransport()
        self.transport = _Transport(self.raw)
        self.parsed = bytearray()
        self.parser_exc = None
        self.conn = self

    def receive_data(self, data: bytes) -> None:
        self.parsed += data

    def handle_events(self) -> None:
        pass


def test_reading_resumes_only_when_no_reason_to_pause_is_left():
    raw = FakeTransport()
    transport = _Transport(raw)
    transport.pause_reading()
    transport.pause_reading("fault")
    transport.resume_reading()
    assert not raw.reading
    transport.resume_reading("fault")
    assert raw.reading


async def test_data_is_parsed_at_the_limited_rate_and_at_once_after_it():
    clock, connection = ManualClock(), Parser()
    connection.limit_reading(1000, clock)
    connection.data_received(bytes(1000))
    assert not connection.raw.reading
    await clock.advance(0.5)
    assert len(connection.parsed) == 500
    connection.limit_reading(None, clock)
    assert (len(connection.parsed), connection.raw.reading) == (1000, True)


async def test_a_rate_of_zero_reads_nothing():
    clock, connection = ManualClock(), Parser()
    connection.limit_reading(0, clock)
    connection.data_received(bytes(10))
    await clock.advance(60)
    assert not connection.parsed
