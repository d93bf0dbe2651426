"""The fault proxy against real sockets: each toxic does what its name says, and nothing else."""

import asyncio
import contextlib
import hashlib
import random
import socket
import threading
import time
from collections.abc import Iterator

import pytest
from chaos.proxy import QUEUED_READS, READ_BYTES, Proxy
from chaos.toxics import Bandwidth, Latency, LimitData, ResetPeer, Slicer, SlowClose, Timeout

KERNEL_BYTES = 32 * 1024 * 1024
"""More than the kernel keeps for the four sockets of a connection with buffers at their largest."""


class Server:
    """Hands out the connections it gets."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(10)
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"

    def accept(self) -> socket.socket:
        connection, _ = self._listener.accept()
        connection.settimeout(10)
        return connection

    def close(self) -> None:
        self._listener.close()


@pytest.fixture
def server() -> Iterator[Server]:
    found = Server()
    yield found
    found.close()


@pytest.fixture
def proxy(server: Server) -> Iterator[Proxy]:
    with Proxy(server.address) as found:
        yield found


@contextlib.contextmanager
def pair(proxy: Proxy, server: Server) -> Iterator[tuple[socket.socket, socket.socket]]:
    """Return a client's socket and the server's end of it."""
    with socket.create_connection(("127.0.0.1", proxy.port), 10) as client, server.accept() as accepted:
        yield client, accepted


def read(end: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        more = end.recv(count - len(data))
        assert more, f"the stream ended after {len(data)} of {count} bytes"
        data += more
    return data


def read_all(end: socket.socket) -> bytes:
    data = b""
    while more := end.recv(65536):
        data += more
    return data


def took_s(start_s: float) -> float:
    return time.monotonic() - start_s


def test_without_toxics_both_directions_arrive_as_they_were_sent(proxy, server):
    sent = random.Random(1).randbytes(3_000_000)
    with pair(proxy, server) as (client, accepted):
        for source, sink in ((client, accepted), (accepted, client)):
            writer = threading.Thread(target=source.sendall, args=(sent,))
            writer.start()
            got = read(sink, len(sent))
            writer.join()
            assert hashlib.sha256(got).digest() == hashlib.sha256(sent).digest()


def test_a_half_close_is_passed_on_and_the_other_direction_goes_on(proxy, server):
    with pair(proxy, server) as (client, accepted):
        client.sendall(b"question")
        client.shutdown(socket.SHUT_WR)
        assert read_all(accepted) == b"question"
        accepted.sendall(b"answer")
        accepted.close()
        assert read_all(client) == b"answer"


def test_a_reset_of_one_side_is_a_reset_for_the_other(proxy, server):
    with pair(proxy, server) as (client, accepted):
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        client.close()
        with pytest.raises(ConnectionResetError):
            accepted.recv(1)


def test_a_client_is_reset_when_nobody_listens_at_the_target(proxy, server):
    server.close()
    with contextlib.ExitStack() as stack, pytest.raises(ConnectionResetError):
        # The reset may be there before connecting returns.
        stack.enter_context(socket.create_connection(("127.0.0.1", proxy.port), 10)).recv(1)


def test_a_sender_is_held_back_by_a_receiver_that_does_not_read(proxy, server):
    with pair(proxy, server) as (client, accepted):
        client.settimeout(0.5)
        sent = 0
        with contextlib.suppress(TimeoutError):
            while sent <= KERNEL_BYTES + QUEUED_READS * READ_BYTES:
                sent += client.send(bytes(65536))
        assert sent <= KERNEL_BYTES + QUEUED_READS * READ_BYTES
        read(accepted, sent)


def test_latency_delays_one_direction_and_keeps_the_order(proxy, server):
    with pair(proxy, server) as (client, accepted):
        proxy.add(Latency(latency=150, jitter=50), stream="upstream")
        start_s = time.monotonic()
        for number in range(20):
            client.sendall(bytes([number]))
            time.sleep(0.005)
        assert read(accepted, 20) == bytes(range(20))
        assert took_s(start_s) >= 0.1
        accepted.sendall(b"x")
        client.settimeout(0.09)
        assert client.recv(1) == b"x", "downstream was delayed too"


def test_latency_does_not_limit_the_rate(proxy, server):
    """Twenty bits that are delayed by 300 ms are under way together, not one after the other."""
    with pair(proxy, server) as (client, accepted):
        proxy.add(Latency(latency=300), stream="upstream")
        start_s = time.monotonic()
        for _ in range(20):
            client.sendall(b"x")
            time.sleep(0.01)
        read(accepted, 20)
        assert 0.3 <= took_s(start_s) < 20 * 0.3


def test_bandwidth_passes_no_more_than_its_rate(proxy, server):
    sent = random.Random(2).randbytes(60_000)
    with pair(proxy, server) as (client, accepted):
        proxy.add(Bandwidth(rate=100), stream="upstream")
        start_s = time.monotonic()
        client.sendall(sent)
        assert read(accepted, len(sent)) == sent
        assert took_s(start_s) >= 0.55


def test_bandwidth_of_zero_holds_everything_and_loses_nothing(proxy, server):
    with pair(proxy, server) as (client, accepted):
        name = proxy.add(Bandwidth(rate=0), stream="upstream")
        client.sendall(b"held")
        accepted.settimeout(0.3)
        with pytest.raises(TimeoutError):
            accepted.recv(1)
        proxy.update(name, rate=1000)
        accepted.settimeout(10)
        assert read(accepted, 4) == b"held"


def test_slow_close_delays_the_end_alone(proxy, server):
    with pair(proxy, server) as (client, accepted):
        proxy.add(SlowClose(delay=400), stream="upstream")
        start_s = time.monotonic()
        client.sendall(b"x")
        client.shutdown(socket.SHUT_WR)
        assert read(accepted, 1) == b"x"
        accepted.settimeout(0.1)
        with pytest.raises(TimeoutError):
            accepted.recv(1)
        accepted.settimeout(10)
        assert accepted.recv(1) == b""
        assert took_s(start_s) >= 0.4


def test_timeout_drops_data_and_closes_the_connection_after_its_time(proxy, server):
    with pair(proxy, server) as (client, accepted):
        start_s = time.monotonic()
        proxy.add(Timeout(timeout=300), stream="upstream")
        client.sendall(b"lost")
        assert read_all(accepted) == b""
        assert read_all(client) == b""
        assert took_s(start_s) >= 0.3


def test_timeout_of_zero_keeps_silent_until_removed_and_never_goes_on_with_a_hole(proxy, server):
    with pair(proxy, server) as (client, accepted), pair(proxy, server) as (idle_client, idle_accepted):
        with proxy.toxic(Timeout(), stream="upstream"):
            client.sendall(b"lost")
            accepted.settimeout(0.3)
            with pytest.raises(TimeoutError):
                accepted.recv(1)
            accepted.sendall(b"other way")
            assert read(client, 9) == b"other way"
        accepted.settimeout(10)
        assert read_all(accepted) == b""
        idle_client.sendall(b"lost nothing")
        assert read(idle_accepted, 12) == b"lost nothing"


def test_reset_peer_resets_both_sides_after_its_time_even_when_nothing_moves(proxy, server):
    with pair(proxy, server) as (client, accepted):
        start_s = time.monotonic()
        proxy.add(ResetPeer(timeout=200))
        for end in (client, accepted):
            with pytest.raises(ConnectionResetError):
                end.recv(1)
        assert took_s(start_s) >= 0.2


def test_slicer_cuts_data_into_bits_and_keeps_it_whole(proxy, server):
    sent = random.Random(3).randbytes(2_000)
    with pair(proxy, server) as (client, accepted):
        client.sendall(sent)
        whole = 0
        got = b""
        while len(got) < len(sent):
            got += accepted.recv(65536)
            whole += 1
        with proxy.toxic(Slicer(average_size=40, size_variation=10, delay=3_000), stream="upstream"):
            client.sendall(sent)
            bits = 0
            got = b""
            while len(got) < len(sent):
                got += accepted.recv(65536)
                bits += 1
        assert got == sent
        assert bits > 5 * whole


def test_limit_data_closes_after_exactly_so_many_bytes(proxy, server):
    with pair(proxy, server) as (client, accepted):
        proxy.add(LimitData(bytes=1_000), stream="upstream")
        client.sendall(bytes(5_000))
        assert len(read_all(accepted)) == 1_000


def test_toxics_also_apply_to_connections_that_come_later_and_go_when_removed(proxy, server):
    name = proxy.add(LimitData(bytes=3))
    with pair(proxy, server) as (client, accepted):
        accepted.sendall(b"abcdef")
        assert read_all(client) == b"abc"
    proxy.remove(name)
    with pair(proxy, server) as (client, accepted):
        accepted.sendall(b"abcdef")
        assert read(client, 6) == b"abcdef"


def test_several_toxics_of_one_direction_hold_together(proxy, server):
    with pair(proxy, server) as (client, accepted):
        proxy.add(Latency(latency=200), stream="upstream")
        proxy.add(Latency(latency=100), stream="upstream", name="second")
        proxy.add(LimitData(bytes=5), stream="upstream")
        start_s = time.monotonic()
        client.sendall(b"1234567")
        assert read_all(accepted) == b"12345"
        assert took_s(start_s) >= 0.3


def test_down_refuses_new_connections_resets_old_ones_and_comes_back_on_the_same_port(proxy, server):
    with pair(proxy, server) as (client, accepted), proxy.down():
        for end in (client, accepted):
            with pytest.raises(ConnectionResetError):
                end.recv(1)
        for _ in range(20):
            with socket.create_server(("127.0.0.1", 0)) as other:
                assert other.getsockname()[1] != proxy.port
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", proxy.port), 10)
    with pair(proxy, server) as (client, accepted):
        client.sendall(b"back")
        assert read(accepted, 4) == b"back"


def test_reset_removes_every_toxic_and_enables(proxy, server):
    proxy.add(Timeout(), stream="upstream")
    proxy.disable()
    proxy.reset()
    with pair(proxy, server) as (client, accepted):
        client.sendall(b"x")
        assert read(accepted, 1) == b"x"


def test_toxicity_hits_a_part_of_the_connections_and_the_same_ones_for_the_same_seed(server):
    def hit(seed: int) -> list[bool]:
        found = []
        with Proxy(server.address, seed=seed) as proxy:
            proxy.add(LimitData(bytes=0), stream="upstream", toxicity=0.5)
            for _ in range(24):
                with pair(proxy, server) as (client, accepted):
                    client.sendall(b"x")
                    found.append(accepted.recv(1) == b"")
        return found

    first = hit(7)
    assert 0 < sum(first) < 24
    assert hit(7) == first
    assert hit(8) != first


async def test_it_can_be_changed_from_a_coroutine_while_connections_run(proxy, server):
    accepting = asyncio.create_task(asyncio.to_thread(server.accept))
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    with await accepting as accepted:
        with proxy.toxic(Bandwidth(rate=0)):
            accepted.sendall(b"late")
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(reader.readexactly(4), 0.2)
        assert await asyncio.wait_for(reader.readexactly(4), 10) == b"late"
        writer.close()
        await writer.wait_closed()


def test_it_counts_its_connections(proxy, server):
    assert (proxy.active, proxy.accepted) == (0, 0)
    with pair(proxy, server) as (client, accepted):
        # Both ends are connected by the kernel a moment before the proxy knows; what comes through, it passed on.
        client.sendall(b"x")
        assert read(accepted, 1) == b"x"
        assert (proxy.active, proxy.accepted) == (1, 1)


def test_mistakes_are_refused(proxy):
    proxy.add(Timeout())
    with pytest.raises(ValueError, match="already"):
        proxy.add(Timeout())
    with pytest.raises(ValueError, match="toxicity"):
        proxy.add(Timeout(), name="other", toxicity=2)
    with pytest.raises(ValueError, match="no stream"):
        proxy.add(Timeout(), stream="sideways")
    with pytest.raises(ValueError, match="size_variation"):
        Slicer(average_size=1, size_variation=1)
    with pytest.raises(KeyError):
        proxy.remove("nothing")


@pytest.mark.parametrize("how", ["closed by its client", "reset by the proxy", "down"])
def test_what_clients_had_is_known_with_its_beginning_and_its_end(proxy, server, how):
    with pair(proxy, server) as (client, accepted):
        client.sendall(b"GET /ws/secret HTTP/1.1\r\n")
        read(accepted, 10)
        (passed,) = proxy.passed
        assert passed.request.startswith(b"GET /ws/secret ")
        assert passed.ended_s is None
        match how:
            case "closed by its client":
                client.close()
            case "reset by the proxy":
                proxy.drop()
            case "down":
                proxy.disable()
        give_up_s = time.monotonic() + 10
        while passed.ended_s is None:
            assert time.monotonic() < give_up_s
            time.sleep(0.01)
        assert passed.ended_s >= passed.began_s
