"""Rotation of keys, key sets and certificates while sessions talk: none is lost, and every word is spoken."""

import asyncio
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from cryptography import x509

from acceptance.auth.stage import Stage, certificates, stage
from acceptance.line import Line, Outcome, Setting
from liveavatar.gateway import TLS, AsyncClient, SessionEndedEvent
from testkit.caller import AVATAR
from testkit.certificates import Authority

_SPEECH: Final = bytes(48_000 * 2)
_READ_S: Final = 3.0
"""Time in which the gateway has read a changed file."""
_NAME: Final = "agent.example.org"
_ROLES: Final = ("open", "speak", "control", "watch")


@dataclass
class Talk:
    """Conversation of one caller, until it is told to stop."""

    kind: str
    completed: int = 0
    problems: list[str] = field(default_factory=list)

    async def run(self, client: AsyncClient, stop: asyncio.Event) -> None:
        """Speak utterance after utterance in one session."""
        try:
            async with client.open_session(AVATAR) as session:
                watching = asyncio.create_task(self._watch(session))
                while not stop.is_set() and not self.problems:
                    outcome = await session.say(_SPEECH)
                    if outcome.kind == "played":
                        self.completed += 1
                    else:
                        self.problems.append(f"{self.kind}: an utterance was {outcome.kind}: {outcome.error}")
                        return
                watching.cancel()
        except Exception as error:  # noqa: BLE001 - whatever it is, the session was lost
            self.problems.append(f"{self.kind}: {type(error).__name__}: {error}")

    async def _watch(self, session) -> None:  # type: ignore[no-untyped-def]
        async for event in session.events():
            if isinstance(event, SessionEndedEvent):
                self.problems.append(f"{self.kind}: the session ended")


async def _rotate_keys(at: Stage, shown: dict[str, str]) -> None:
    before, shown["key"] = shown["key"], at.tenants.key("acme", *_ROLES)
    await asyncio.sleep(_READ_S)
    at.tenants.revoke("acme", before)
    await asyncio.sleep(_READ_S)


async def _rotate_key_set(at: Stage, shown: dict[str, str]) -> None:
    """Publish the next key, sign with it, then take the former one out of the set."""
    at.issuer.rotate()
    at.jwks.write_bytes(at.issuer.jwks)
    await asyncio.sleep(_READ_S)
    shown["token"] = at.token("acme", *_ROLES)
    await asyncio.sleep(_READ_S)
    del at.issuer.entries[:-1]
    at.jwks.write_bytes(at.issuer.jwks)
    await asyncio.sleep(_READ_S)


async def _rotate_certificates(authority: Authority, files: dict[str, Path], caller: dict[str, Path]) -> None:
    server, agent = authority.server(), authority.sign("agent", x509.DNSName(_NAME))
    files["tls_key_file"].write_bytes(server.key)
    files["tls_cert_file"].write_bytes(server.certificate)
    caller["key_file"].write_bytes(agent.key)
    caller["certificate_file"].write_bytes(agent.certificate)
    await asyncio.sleep(_READ_S)


async def _run(setting: Setting) -> Outcome:
    rounds, talkers = (5, 6) if setting.long else (1, 2)
    authority = Authority()
    with certificates(authority) as files, stage("acme", mtls_port=0, **files) as at:
        at.tenants.certificate("acme", f"dns:{_NAME}", *_ROLES)
        agent = authority.sign("agent", x509.DNSName(_NAME))
        caller = {"certificate_file": at.folder / "agent.pem", "key_file": at.folder / "agent-key.pem"}
        caller["certificate_file"].write_bytes(agent.certificate)
        caller["key_file"].write_bytes(agent.key)
        shown = {"key": at.tenants.key("acme", *_ROLES), "token": at.token("acme", *_ROLES)}
        await asyncio.sleep(_READ_S)
        ca_file = files["tls_client_ca_file"]
        mtls = at.gateway.process.info["mtls_address"]
        stop = asyncio.Event()
        async with (
            AsyncClient(at.gateway.address, credentials=lambda: shown["key"], tls=TLS(ca_file=ca_file)) as by_key,
            AsyncClient(
                at.gateway.address, credentials=lambda: shown["token"], tls=TLS(ca_file=ca_file)
            ) as by_token,
            AsyncClient(mtls, tls=TLS(ca_file=ca_file, **caller)) as by_certificate,
        ):
            clients = {"key": by_key, "token": by_token, "certificate": by_certificate}
            talks = [Talk(kind) for kind in clients for _ in range(talkers)]
            running = [asyncio.create_task(talk.run(clients[talk.kind], stop)) for talk in talks]
            await asyncio.sleep(_READ_S)
            for _ in range(rounds):
                await _rotate_keys(at, shown)
                await _rotate_key_set(at, shown)
                await _rotate_certificates(authority, files, caller)
            stop.set()
            await asyncio.wait_for(asyncio.gather(*running), 120)
    problems = [problem for talk in talks for problem in talk.problems]
    spoken = sum(talk.completed for talk in talks)
    silent = sum(not talk.completed for talk in talks)
    lost = len({id(talk) for talk in talks if talk.problems})
    figure = (
        f"{lost} of {len(talks)} sessions lost in {rounds} rotations of keys, key set and certificates, "
        f"{spoken} utterances spoken whole"
    )
    return Outcome(figure="; ".join([figure, *problems[:3]]), passed=not problems and not silent)


ROTATION = Line(name="rotation", goal="0 sessions lost while keys, JWKS and certificates rotate", run=_run)
