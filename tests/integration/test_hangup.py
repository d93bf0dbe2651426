"""SIGHUP and renewed files: a closed terminal drains the gateway, anything else has it read its files again."""

import asyncio
import contextlib
import os
import pty
import signal
import ssl
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from liveavatar.gateway.v1 import audio_pb2, session_pb2
from testkit import processes, speech
from testkit.caller import caller as connect
from testkit.caller import refused
from testkit.certificates import make_certificate
from testkit.processes import API_KEY


async def _until(condition: Callable[[], object], timeout_s: float = 20.0) -> None:
    give_up_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < give_up_s
        await asyncio.sleep(0.05)


async def test_a_terminal_that_is_closed_drains_the_gateway(emulator):
    before = emulator.active()
    master, terminal = pty.openpty()
    with processes.gateway(emulator.url, terminal_fd=terminal) as gateway:
        os.close(terminal)
        async with connect(gateway.address) as caller:
            attachment = await caller.attach()
            stream = await caller.speak(attachment.session_id)
            await stream.say(speech.sound(1.5), "u")
            await stream.until("started")
            os.close(master)
            assert (await stream.until("ended")).outcome == audio_pb2.UTTERANCE_OUTCOME_COMPLETED
            assert (await attachment.event("ended")).session.end_reason == session_pb2.END_REASON_DRAINED
        assert await asyncio.to_thread(gateway.process.wait, 30) == 0
    assert emulator.active() == before


async def test_a_hangup_that_somebody_sends_reads_the_files_again_and_ends_nothing(emulator, tmp_path):
    key = tmp_path / "key"
    key.write_text("another-key")
    master, terminal = pty.openpty()
    with processes.gateway(emulator.url, terminal_fd=terminal, api_key_file=key) as gateway:
        async with connect(gateway.address) as caller:
            assert (await refused(caller.create())).reason == "UPSTREAM_UNAUTHENTICATED"
            key.write_text("")
            gateway.process.send(signal.SIGHUP)
            await _until(lambda: "reload.failed" in gateway.process.log)
            key.write_text(f"{API_KEY}\n")
            gateway.process.send(signal.SIGHUP)
            await _until(lambda: "reload.done" in gateway.process.log)
            attachment = await caller.attach()
            await attachment.until_ready()
            # Longer than the second look at the terminal.
            await asyncio.sleep(1.2)
            assert "serve.drain" not in gateway.process.log
            await caller.end(attachment.session_id)
    os.close(master)
    os.close(terminal)


def _shown(address: str) -> str:
    """Return the certificate of a new connection, as PEM."""
    host, _, port = address.rpartition(":")
    with contextlib.suppress(OSError):
        return ssl.get_server_certificate((host.strip("[]"), int(port)), timeout=5)
    return ""


def _is(address: str, certificate: Path) -> bool:
    return _shown(address).split() == certificate.read_text().split()


@pytest.mark.parametrize("told", [False, True], ids=["files change", "SIGHUP"])
async def test_a_renewed_certificate_is_shown_to_new_connections(emulator, tmp_path, told):
    certificate, key = make_certificate(tmp_path)
    with processes.gateway(emulator.url, tls_cert_file=certificate, tls_key_file=key, admin_port=0) as gateway:
        addresses = (gateway.address, gateway.admin_address)
        assert all([await asyncio.to_thread(_is, address, certificate) for address in addresses])
        old = certificate.read_text()
        (tmp_path / "new").mkdir()
        new_certificate, new_key = make_certificate(tmp_path / "new", "renewed")
        # Half of the pair: the old one stays.
        certificate.write_bytes(new_certificate.read_bytes())
        if told:
            gateway.process.send(signal.SIGHUP)
        await _until(lambda: "reload.failed" in gateway.process.log)
        assert (await asyncio.to_thread(_shown, gateway.address)).split() == old.split()
        assert gateway.process.logged("is not the key of the certificate")
        new_key.replace(key)
        if told:
            gateway.process.send(signal.SIGHUP)
        for address in addresses:
            give_up_s = time.monotonic() + 20
            while not await asyncio.to_thread(_is, address, new_certificate):
                assert time.monotonic() < give_up_s
        assert gateway.process.log.count("reload.failed") == 1
