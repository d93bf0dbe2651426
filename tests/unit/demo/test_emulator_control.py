"""Answers that are no answer, told by the emulator's control client in plain words."""

import asyncio

import pytest

from liveavatar_demo.emulator_control import EmulatorControl, EmulatorRefused, EmulatorUnreachable
from testkit.answering import answering, http


def test_an_address_where_nobody_listens_is_named():
    said = r"http://127\.0\.0\.1:9 does not answer .*address right"
    with EmulatorControl("http://127.0.0.1:9") as control, pytest.raises(EmulatorUnreachable, match=said):
        control.state()


async def test_a_refusal_says_which_call_was_refused_and_why():
    async with answering() as server:
        server.answers = {"/_emulator/sessions/s-1/drop": http(409, {"detail": "the session has no socket"})}
        said = r"POST /_emulator/sessions/s-1/drop: .*has no socket"
        with EmulatorControl(server.url) as control, pytest.raises(EmulatorRefused, match=said):
            await asyncio.to_thread(control.drop, "s-1", 4001)


async def test_a_fault_is_known_by_the_number_in_its_location():
    async with answering() as server:
        server.answers = {"/_emulator/faults": http(201, {}, Location="/_emulator/faults/17")}
        with EmulatorControl(server.url) as control:
            assert await asyncio.to_thread(control.arm, kind="drop", session="all") == 17
