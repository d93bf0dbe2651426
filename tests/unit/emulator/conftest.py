"""Emulator in memory: the service under a manual clock, and an HTTP client that calls its ASGI application."""

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from liveavatar_emulator.app import build
from liveavatar_emulator.config import ServerConfig, Settings
from liveavatar_emulator.rest.token import TokenRequest
from liveavatar_emulator.service import Emulator
from liveavatar_emulator.session_store import MintedSession, StartedSession

AVATAR = "0b1e6a52-6f0c-4f5e-9a51-3f3f2b6f1c11"
KEY = {"X-API-KEY": "emulator-key"}


class Service:
    """An emulator with shortcuts for tests."""

    def __init__(self, **knobs: Any) -> None:
        settings = Settings(**{"rate": 0, "concurrency": 10, "ready_delay_ms": 0, **knobs})
        self.emulator = Emulator(ServerConfig(clock="manual", allowed_hosts=("emulator",)), settings)
        self.account = self.emulator.accounts[0]

    def mint(self, **body: Any) -> tuple[MintedSession, str]:
        """Mint a session and return it with its token."""
        request = TokenRequest.model_validate({"avatar_id": AVATAR, **body})
        return self.emulator.mint(self.account, request.session_request(self.emulator.settings))

    def start(self, **body: Any) -> StartedSession:
        """Mint and start a session."""
        minted, _ = self.mint(**body)
        self.emulator.start(minted, "ws://emulator")
        return self.emulator.sessions.running(minted.session_id, self.account)


@pytest.fixture
async def service() -> Service:
    return Service()


@pytest.fixture
def make_service() -> type[Service]:
    return Service


@pytest.fixture
async def http(service) -> AsyncIterator[httpx.AsyncClient]:
    """Client with the service's API key."""
    transport = httpx.ASGITransport(build(service.emulator))
    async with httpx.AsyncClient(transport=transport, base_url="http://emulator", headers=KEY) as client:
        yield client
