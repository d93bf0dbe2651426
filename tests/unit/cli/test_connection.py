"""Addresses of gateways on the command line, and next steps of their errors."""

import click
import pytest

from liveavatar.gateway import CapacityExhausted, ConnectionLost, DeadlineExceeded
from liveavatar_gateway.cli.connection import connection_options, explanation


@click.command()
@connection_options
def command(address: str, ca: object, *, tls: bool) -> None:
    click.echo(address)


def run(address: str) -> tuple[int, str]:
    from click.testing import CliRunner

    result = CliRunner().invoke(command, ["--address", address])
    return result.exit_code, result.output


@pytest.mark.parametrize("address", ["localhost:1", "[::1]:1", "a:1,b:2", "dns:///gateway:443"])
def test_usable_addresses_are_accepted(address):
    assert run(address) == (0, f"{address}\n")


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("", "is not HOST:PORT"),
        ("a:1,", "is not HOST:PORT"),
        ("::1:50051", "[::1]:50051"),
        ("fe80::1", "needs brackets"),
    ],
)
def test_an_unusable_address_is_refused(address, words):
    code, output = run(address)
    assert code == 2
    assert words in " ".join(output.replace("│", " ").split())


def test_an_error_has_its_reason_and_the_next_step():
    lines = explanation(CapacityExhausted("all in use", retry_after=2.0), "g:1")
    assert lines[0].endswith("all in use")
    assert lines[-1] == "retry in 2 s"


def test_a_gateway_that_does_not_answer_is_named():
    assert explanation(ConnectionLost("refused"), "g:1")[0] == "no gateway answers on g:1: refused"
    assert explanation(DeadlineExceeded("late"), "g:1")[0] == "g:1 did not answer in time: late"
