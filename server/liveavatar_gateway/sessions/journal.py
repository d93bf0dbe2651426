"""The registry as sessions use it: a ledger for each, and outages that are told once and end no session."""

import asyncio
import time
from collections.abc import Callable, Iterable
from typing import Protocol

import structlog

from liveavatar_gateway.core.errors import OwnerMoved, RegistryUnavailable
from liveavatar_gateway.core.events import SessionEvent, UtteranceEnded
from liveavatar_gateway.core.speech.utterance import Utterance
from liveavatar_gateway.core.states import EndReason
from liveavatar_gateway.registry.base import Fence, HandleHash, Payload, Registry
from liveavatar_gateway.sessions.bulkhead import bulkhead
from liveavatar_gateway.sessions.record import (
    UtteranceRecord,
    access_facts,
    ended_record,
    requested_end,
    utterance_record,
)
from liveavatar_gateway.sessions.wakeup import Wakeup
from liveavatar_gateway.telemetry.metrics import Metrics
from liveavatar_gateway.upstream.model import Started

_log = structlog.get_logger(__name__)
_CONFIRM_S = 10.0
"""Longest wait for the registry after the process stood still; then sessions go on as in an outage."""


class JournaledSession(Protocol):
    """A session as its ledger sees it."""

    @property
    def id(self) -> str:
        """The gateway's id of the session."""

    def facts(self) -> Payload:
        """What is true of it now, see `record.Record`."""

    def handle_hashes(self) -> Iterable[HandleHash]:
        """What resumes it."""

    def moved(self, error: OwnerMoved) -> None:
        """Another process has it: send nothing any more, and leave it running upstream."""

    def end_for(self, reason: EndReason) -> None:
        """Somebody asked another process to end it."""


class SessionJournal:
    """What the registry knows of one session.

    `note_*` are on record at once, wait for no disk and never fail; what was noted goes with the next write. All
    else is kept in memory until the books write it, and again until that has worked.
    """

    def __init__(self, books: "JournalWriter", session: JournaledSession, fence: Fence | None = None) -> None:
        self._books = books
        self._session = session
        self._noted: dict[str, UtteranceRecord] = {}
        self._unsaved: dict[str, Payload] = {}
        self._dropped: set[str] = set()
        self._finish_keep_s: float | None = None
        self.fence = fence
        """None until something of it may run upstream."""
        self.changed = False
        self.closed = False

    def reserved(self, fence: Fence) -> None:
        """The session is in the registry from now on."""
        self.fence = fence
        self._books.add(self)
        self.note_handles()

    @property
    def session_id(self) -> str:
        """The gateway's id of the session."""
        return self._session.id

    # --- the account upstream, see `upstream.account.SessionJournal`

    async def minted(self, upstream_session_id: str) -> None:
        """Write the session down before anything of it can run.

        Raises:
            RegistryUnavailable: it cannot be written.
        """
        registry = self._books.registry
        try:
            if self.fence is None:
                self.reserved(await registry.create(self._session.id, self._session.facts()))
            assert self.fence is not None  # noqa: S101 - set just now
            await registry.add_upstream(self.fence, upstream_session_id)
        except RegistryUnavailable as error:
            self._books.note_outage(error)
            raise

    async def started(self, started: Started) -> None:
        """Keep how it is reached."""
        self._unsaved[started.session_id] = access_facts(started)
        await self._books.write(self)

    async def stopped(self, upstream_session_id: str) -> None:
        """Nothing of it runs under this id any more."""
        self._unsaved.pop(upstream_session_id, None)
        self._dropped.add(upstream_session_id)
        await self._books.write(self)

    async def confirm_lease(self) -> None:
        """Make sure that the session is still this process's, see `JournalWriter.confirm_lease`."""
        if self.fence is not None and not self.closed:
            await self._books.confirm_lease()

    # --- at once

    def note_handles(self) -> None:
        """Keep what resumes the session, before a caller is given it."""
        self._at_once(lambda registry, fence: registry.journal_handles(fence, list(self._session.handle_hashes())))
        self.change()

    def note_sequence(self, sequence: int) -> None:
        """Keep the number of the last event, before anybody is told of it."""
        self._at_once(lambda registry, fence: registry.journal_sequence(fence, sequence))
        self.change()

    def note_utterance(self, utterance: Utterance) -> None:
        """Keep how far an utterance is."""
        record = utterance_record(utterance)
        self._noted[utterance.id] = record
        facts = record.facts()
        self._at_once(lambda registry, fence: registry.journal_utterance(fence, utterance.id, facts))

    def note_change(self, utterance: Utterance) -> None:
        """Keep how far an utterance is, if that is known here and was something else.

        A lost socket takes back what it had not delivered, and an interrupt what LiveAvatar dropped unheard.
        """
        if (known := self._noted.get(utterance.id)) is not None and known != utterance_record(utterance):
            self.note_utterance(utterance)

    def note_cut(self, utterances: Iterable[Utterance]) -> None:
        """Keep which ones are being cut, before that goes out: whoever goes on must not speak on."""
        for utterance in utterances:
            if utterance.interrupted:
                self.note_utterance(utterance)

    def note_speech(self, happenings: Iterable[SessionEvent], utterances: Iterable[Utterance]) -> None:
        """Keep what has happened to speech, and how far the utterances are that go on."""
        for happening in happenings:
            if isinstance(happening, UtteranceEnded):
                self.note_ended(happening)
        for utterance in utterances:
            self.note_change(utterance)

    def note_ended(self, ended: UtteranceEnded) -> None:
        """Keep how an utterance ended, for a caller that was not told."""
        self._noted.pop(ended.utterance_id, None)
        facts = ended_record(ended).facts()
        self._at_once(lambda registry, fence: registry.journal_utterance(fence, ended.utterance_id, facts))
        self.change()

    def _at_once(self, write: Callable[[Registry, Fence], None]) -> None:
        if self.fence is None or self.closed:
            return
        write(self._books.registry, self.fence)

    # --- soon

    def change(self) -> None:
        """The session's record is another: write it soon."""
        self.changed = True
        self._books.wake()

    async def save(self) -> None:
        """Write the record now; what cannot be written is written later."""
        self.changed = True
        await self._books.write(self)

    async def finish(self, keep_s: float) -> None:
        """Write the final record, and keep it for `keep_s` seconds."""
        self._finish_keep_s = keep_s
        if self.fence is not None and not self.closed:
            await self._books.write(self)

    def lose(self, error: OwnerMoved) -> None:
        """Another process has the session."""
        if not self.closed:
            self.closed = True
            if self.fence is not None:
                self._books.registry.discard_journal(self.fence)
            self._session.moved(error)

    def end_for(self, reason: str) -> None:
        """Somebody asked another process to end the session."""
        if not self.closed:
            self._session.end_for(requested_end(reason))

    async def write(self) -> None:
        """Write all that is not written yet. For the books.

        Raises:
            RegistryUnavailable: some of it is still to be written.
            OwnerMoved: it is no longer this process's to write.
        """
        registry, fence = self._books.registry, self.fence
        for upstream_session_id in tuple(self._dropped):
            await registry.drop_upstream(upstream_session_id)
            self._dropped.discard(upstream_session_id)
        if fence is None or self.closed:
            return
        for upstream_session_id, access in tuple(self._unsaved.items()):
            await registry.save_access(fence, upstream_session_id, access)
            self._unsaved.pop(upstream_session_id, None)
        self.changed = False
        try:
            facts = self._session.facts()
            if self._finish_keep_s is None:
                await registry.save(fence, facts)
            else:
                # False while something of it may still run upstream: `stopped` writes again.
                self.closed = await registry.finish(fence, facts, retention_s=self._finish_keep_s)
        except RegistryUnavailable:
            self.changed = True
            raise


class JournalWriter:
    """Writer of this process's session journals and of its lease. `run` is its one task.

    An outage of the registry refuses new sessions (`SessionJournal.minted`) and ends none: what was not written
    is written when it works again.
    """

    def __init__(self, registry: Registry, metrics: Metrics, *, renew_s: float, lease_s: float) -> None:
        self.registry = registry
        self._metrics = metrics
        self._renew_s = renew_s
        self._lease_s = lease_s
        self._renewed_at_s: float | None = None
        """Time of the latest try to renew the lease; None before the first."""
        self._confirming: asyncio.Task[None] | None = None
        self._ledgers: dict[str, SessionJournal] = {}
        self._signal = Wakeup()
        self._outage = False
        self.address = ""

    @property
    def available(self) -> bool:
        """Return whether the registry worked when it was used last."""
        return not self._outage

    def ledger(self, session: JournaledSession, fence: Fence | None = None) -> SessionJournal:
        """Open the ledger of a session; with a `fence`, of one that was claimed."""
        ledger = SessionJournal(self, session, fence)
        if fence is not None:
            self.add(ledger)
        return ledger

    def add(self, ledger: SessionJournal) -> None:
        """Take a ledger in whose session is in the registry."""
        assert ledger.fence is not None  # noqa: S101 - its session is in the registry
        self._ledgers[ledger.fence.session_id] = ledger

    def wake(self) -> None:
        """Write what has changed."""
        self._signal.set()

    async def write(self, ledger: SessionJournal) -> bool:
        """Write one ledger now; what cannot be written is kept for later, and False returned."""
        works = True
        try:
            await ledger.write()
        except RegistryUnavailable as error:
            ledger.changed = True
            works = False
            self.note_outage(error)
        except OwnerMoved as error:
            ledger.lose(error)
        else:
            self._note_recovery()
        if ledger.closed and not ledger.changed and ledger.fence is not None:
            self._ledgers.pop(ledger.fence.session_id, None)
        return works

    async def run(self) -> None:
        """Renew the lease and write what has changed, until cancelled."""
        renew_at_s = 0.0
        while True:
            try:
                if time.monotonic() >= renew_at_s:
                    renew_at_s = time.monotonic() + self._renew_s
                    await self._renew()
                await self.write_all()
            except Exception:  # noqa: BLE001 - the root of its task: without renewals others take all sessions over
                _log.exception("books.crashed")
            await self._signal.wait(renew_at_s - time.monotonic())

    async def write_all(self) -> None:
        """Write every ledger that has changed, each once however often it did; the rest later in an outage.

        Each write waits for as long as a lock may last, and the lease has to be renewed in between.
        """
        for ledger in [ledger for ledger in self._ledgers.values() if ledger.changed]:
            faulty = True
            with bulkhead("books.write_failed", ledger.session_id):
                if not await self.write(ledger):
                    return
                faulty = False
            if faulty:
                # Tried again when it changes; at once, it would fail for ever.
                ledger.changed = False

    async def confirm_lease(self) -> None:
        """Renew a lease that ran out while this process stood still, before anything is sent for its sessions.

        Another process may have them by now: those are given up here. An outage of the registry ends none, and
        is not waited for: the tries to renew go on in it, so that only a process that stood still made none.
        """
        if self._renewed_at_s is None or time.monotonic() < self._renewed_at_s + self._lease_s:
            return
        if self._confirming is None:
            _log.warning("books.stood_still", late_s=round(time.monotonic() - self._renewed_at_s, 1))
            self._confirming = asyncio.create_task(self._confirm(), name="books/confirm")
        await asyncio.wait([self._confirming], timeout=_CONFIRM_S)

    async def _confirm(self) -> None:
        try:
            await self._renew()
        except Exception:  # noqa: BLE001 - the root of its task
            _log.exception("books.crashed")
        finally:
            self._confirming = None

    async def _renew(self) -> None:
        began_s = time.monotonic()
        try:
            await self._renew_all()
        finally:
            self._renewed_at_s = began_s

    async def _renew_all(self) -> None:
        before = [ledger for ledger in self._ledgers.values() if not ledger.closed]
        try:
            mine = await self.registry.renew(self.address)
            wanted = await self.registry.end_requests()
        except RegistryUnavailable as error:
            self.note_outage(error)
            return
        self._note_recovery()
        for ledger in before:
            fence = ledger.fence
            if fence is not None and not ledger.closed and mine.get(fence.session_id) != fence.epoch:
                with bulkhead("books.renew_failed", fence.session_id):
                    ledger.lose(OwnerMoved(fence.session_id))
        for session_id, reason in wanted.items():
            if (wanted_ledger := self._ledgers.get(session_id)) is not None:
                with bulkhead("books.end_failed", session_id):
                    wanted_ledger.end_for(reason)

    def note_outage(self, error: RegistryUnavailable) -> None:
        """The registry did not work."""
        if not self._outage:
            self._outage = True
            self._metrics.registry_works(works=False)
            _log.error("registry.unavailable", error=error.metadata.get("error", ""))

    def _note_recovery(self) -> None:
        if self._outage:
            self._outage = False
            self._metrics.registry_works(works=True)
            _log.info("registry.available")


async def write_journals(books: JournalWriter) -> None:
    """Run the books as a task of one's own until it is cancelled, and write what is left then."""
    try:
        await books.run()
    except asyncio.CancelledError:
        await books.write_all()
        raise
