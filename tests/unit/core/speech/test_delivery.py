"""Delivery: packets of an utterance from their sending to their confirmation."""

import pytest

from liveavatar_gateway.core import messages as m
from liveavatar_gateway.core.speech.delivery import Delivery, Sending


@pytest.fixture
def delivery():
    """Delivery of three packets of a second each, sent at 1, 2 and 3 s with the numbers 11 to 13."""
    delivery = Delivery()
    for ordinal in range(1, 4):
        delivery.send(bytes([ordinal]) * m.BYTE_RATE, ordinal * 100, Sending(float(ordinal), 10 + ordinal))
    return delivery


def state(delivery):
    return (
        delivery.confirmed,
        delivery.confirmed_number,
        [packet.ordinal for packet in delivery.unconfirmed],
        [packet.ordinal for packet in delivery.again],
    )


@pytest.mark.parametrize(
    ("confirm", "kept"),
    [
        (lambda delivery: delivery.ack(2), [3]),
        (lambda delivery: delivery.read(12, sent_by_s=9.0), [3]),
        (lambda delivery: delivery.read(13, sent_by_s=1.5), [2, 3]),
        (lambda delivery: delivery.read(13, sent_by_s=9.0), []),
        (lambda delivery: delivery.presume(sent_by_s=2.0), [3]),
        (lambda delivery: delivery.presume_all_but(1.5), [3]),
        (lambda delivery: delivery.presume_all_but(3.0), [1, 2, 3]),
        (lambda delivery: delivery.presume_all_but(0.0), []),
        (lambda delivery: delivery.confirm_all(), []),
    ],
)
def test_each_proof_confirms_the_oldest_packets(delivery, confirm, kept):
    confirm(delivery)
    count = 3 - len(kept)
    assert state(delivery) == (count * 100, 10 + count if count else 0, kept, [])
    assert delivery.unconfirmed_s == len(kept)
    assert delivery.taken == 300


def test_unconfirmed_packets_of_a_lost_socket_are_sent_again_first_and_in_order(delivery):
    delivery.ack(1)
    assert delivery.lose() == 2 * m.BYTE_RATE
    assert state(delivery) == (100, 11, [], [2, 3])
    assert delivery.taken == 100
    assert delivery.send_again(Sending(5.0, 14)) == bytes([2]) * m.BYTE_RATE
    assert state(delivery) == (100, 11, [2], [3])
    assert delivery.lose() == m.BYTE_RATE
    assert state(delivery) == (100, 11, [], [2, 3])


def test_what_is_forgotten_is_neither_confirmed_nor_sent_again(delivery):
    delivery.lose()
    delivery.send_again(Sending(5.0, 14))
    delivery.forget()
    assert state(delivery) == (0, 0, [], [])
