"""Exit codes and clean-up on signals."""

import os
import signal

import pytest

from liveavatar_gateway.cli.output import fail, stoppable


def test_a_failure_is_printed_with_the_name_of_the_program(capsys):
    with pytest.raises(SystemExit) as ended:
        fail("broken", 7)
    assert (ended.value.code, capsys.readouterr().err) == (7, "liveavatar-gateway: broken\n")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_clean_up_runs_on_a_signal(number):
    before, cleaned = signal.getsignal(signal.SIGTERM), []

    def work() -> None:
        with stoppable():
            try:
                os.kill(os.getpid(), number)
                signal.pause()
            finally:
                cleaned.append(number)

    with pytest.raises(SystemExit) as ended:
        work()
    assert (ended.value.code, cleaned) == (128 + number, [number])
    assert signal.getsignal(signal.SIGTERM) is before
