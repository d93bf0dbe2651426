"""Journals of sessions in the registry, and the lease of this process; an outage ends no session."""

import asyncio
import time
from collections.abc import Callable, Iterable
from typing import Protocol

import structlog

from liveavatar_gateway.core.errors import OwnerMoved, RegistryUnavailable
from liveavatar_gateway.core.events import SessionEvent, SpeechContinued, SpeechPaused, UtteranceEnded
from liveavatar_gateway.core.speech.utterance import Utterance
from liveavatar_gateway.core.states import EndReason
from liveavatar_gateway.registry.base import Fence, HandleHash, Payload, Registry
from liveavatar_gateway.sessions.bulkhead import bulkhead
from liveavatar_gateway.sessions.record import (
    access_payload,
    requested_end,
)
from liveavatar_gateway.sessions.utterance_record import UtteranceRecord
from liveavatar_gateway.sessions.wakeup import Wakeup
from liveavatar_gateway.telemetry.metrics import Metrics
from liveavatar_gateway.upstream.model import Started

_log = structlog.get_logger(__name__)
_CONFIRM_S = 10.0
"""Longest wait for the registry after the process stood still; then sessions go on as in an outage."""


class JournaledSession(Protocol):
    """A session as its journal needs it."""

    @property
    def id(self) -> str:
        """The gateway's id of the session."""

    @property
    def tenant(self) -> str:
        """Tenant of the session; empty for a session of anonymous callers."""

    def payload(self) -> Payload:
        """Return its present record, see `record.Record`."""

    def handle_hashes(self) -> Iterable[HandleHash]:
        """Return the hashes of the handles that resume it."""

    def moved(self, error: OwnerMoved) -> None:
        """Stop sending, and leave the avatar running: another process has the session."""

    def end_for(self, reason: EndReason) -> None:
        """Begin to end, on a request that came to another process."""


class SessionJournal:
    """Journal of one session.

    `note_*` reach the registry's journal at once, wait for no disk and never fail. All other changes are kept in
    memory until the writer has saved them.
    """

    def __init__(self, writer: "JournalWriter", session: JournaledSession, fence: Fence | None = None) -> None:
        self._writer = writer
        self._session = session
        self._noted: dict[str, UtteranceRecord] = {}
        self._unsaved: dict[str, Payload] = {}
        self._dropped: set[str] = set()
        self._retention_s: float | None = None
        self.fence = fence
        """Right to write; None until the session is in the registry."""
        self.changed = False
        self.closed = False

    def reserved(self, fence: Fence) -> None:
        """Take note that the session is in the registry."""
        self.fence = fence
        self._writer.add(self)
        self.note_handles()

    @property
    def session_id(self) -> str:
        """The gateway's id of the session."""
        return self._session.id

    # --- the account upstream, see `upstream.journal.UpstreamJournal`

    async def minted(self, upstream_session_id: str, *, account: str = "", permit_id: str = "") -> None:
        """Save the id of a LiveAvatar session, its account and its permit before it can run.

        Raises:
            RegistryUnavailable: the registry cannot be written.
        """
        registry = self._writer.registry
        try:
            await self._create()
            assert self.fence is not None  # noqa: S101 - set just now
            await registry.add_upstream(self.fence, upstream_session_id, account=account, permit_id=permit_id)
        except RegistryUnavailable as error:
            self._writer.note_outage(error)
            raise

    async def started(self, started: Started) -> None:
        """Save access to a LiveAvatar session."""
        self._unsaved[started.session_id] = access_payload(started)
        await self._writer.write(self)

    async def stopped(self, upstream_session_id: str) -> None:
        """Save that a LiveAvatar session no longer runs."""
        self._unsaved.pop(upstream_session_id, None)
        self._dropped.add(upstream_session_id)
        await self._writer.write(self)

    async def not_started(self, upstream_session_id: str) -> None:
        """Save that a LiveAvatar session was not started."""
        await self.stopped(upstream_session_id)

    async def take_over(self, started: Started, source: "SessionJournal") -> None:
        """Save that a LiveAvatar session belongs to this session from now on, and not to another one any more.

        Raises:
            RegistryUnavailable: the registry cannot be written; nothing changed.
            OwnerMoved: another process has claimed one of the two sessions; nothing changed.
        """
        registry = self._writer.registry
        if source.fence is None or source.closed:
            raise OwnerMoved(source.session_id)
        try:
            await self._create()
            assert self.fence is not None  # noqa: S101 - set just now
            await registry.move_upstream(source.fence, self.fence, started.session_id)
        except RegistryUnavailable as error:
            self._writer.note_outage(error)
            raise
        source.forget(started.session_id)
        # Soon is enough: until then, another process would only know a later limit.
        self._unsaved[started.session_id] = access_payload(started)
        self.change()

    def forget(self, upstream_session_id: str) -> None:
        """Save nothing more about a LiveAvatar session, which belongs to another session."""
        self._unsaved.pop(upstream_session_id, None)

    async def _create(self) -> None:
        if self.fence is None:
            session = self._session
            created = await self._writer.registry.create(session.id, session.payload(), tenant=session.tenant)
            self.reserved(created)

    async def confirm_lease(self) -> None:
        """Verify that this process still owns the session, see `JournalWriter.confirm_lease`."""
        if self.fence is not None and not self.closed:
            await self._writer.confirm_lease()

    # --- journaled at once

    def note_handles(self) -> None:
        """Note the handles that resume the session, before a caller is sent one."""
        self._at_once(lambda registry, fence: registry.journal_handles(fence, list(self._session.handle_hashes())))
        self.change()

    def note_sequence(self, sequence: int) -> None:
        """Note the number of the last event, before a caller is sent the event."""
        self._at_once(lambda registry, fence: registry.journal_sequence(fence, sequence))
        self.change()

    def note_utterance(self, utterance: Utterance) -> None:
        """Note the progress of an utterance."""
        record = UtteranceRecord.of(utterance)
        self._noted[utterance.id] = record
        payload = record.payload()
        self._at_once(lambda registry, fence: registry.journal_utterance(fence, utterance.id, payload))

    def note_change(self, utterance: Utterance) -> None:
        """Note the progress of an utterance again, if it has changed since it was noted.

        A lost socket takes back audio that it had not delivered, and an interrupt audio that LiveAvatar dropped.
        """
        if (known := self._noted.get(utterance.id)) is not None and known != UtteranceRecord.of(utterance):
            self.note_utterance(utterance)

    def note_interrupts(self, utterances: Iterable[Utterance]) -> None:
        """Note interrupts before they are sent, so that the next owner does not speak on."""
        for utterance in utterances:
            if utterance.interrupted:
                self.note_utterance(utterance)

    def note_held(self, utterances: Iterable[Utterance]) -> None:
        """Note the positions at which utterances continue after a pause, before the pause is sent."""
        for utterance in utterances:
            if utterance.held_at is not None:
                self.note_utterance(utterance)

    def note_speech(self, events: Iterable[SessionEvent], utterances: Iterable[Utterance]) -> None:
        """Note ends of utterances, and progress of the others."""
        for event in events:
            if isinstance(event, UtteranceEnded):
                self.note_ended(event)
            elif isinstance(event, SpeechPaused | SpeechContinued):
                self.change()
        for utterance in utterances:
            self.note_change(utterance)

    def note_ended(self, ended: UtteranceEnded) -> None:
        """Note the end of an utterance, for a caller that was not sent it."""
        self._noted.pop(ended.utterance_id, None)
        payload = UtteranceRecord.of_end(ended).payload()
        self._at_once(lambda registry, fence: registry.journal_utterance(fence, ended.utterance_id, payload))
        self.change()

    def _at_once(self, write: Callable[[Registry, Fence], None]) -> None:
        if self.fence is None or self.closed:
            return
        write(self._writer.registry, self.fence)

    # --- saved soon

    def change(self) -> None:
        """Have the record of the session saved soon."""
        self.changed = True
        self._writer.wake()

    async def save(self) -> None:
        """Save the record now; in an outage, later."""
        self.changed = True
        await self._writer.write(self)

    async def finish(self, retention_s: float) -> None:
        """Save the final record, and keep it for `retention_s`."""
        self._retention_s = retention_s
        if self.fence is not None and not self.closed:
            await self._writer.write(self)

    def lose(self, error: OwnerMoved) -> None:
        """Give the session up: another process has it."""
        if not self.closed:
            self.closed = True
            if self.fence is not None:
                self._writer.registry.discard_journal(self.fence)
            self._session.moved(error)

    def end_for(self, reason: str) -> None:
        """Have the session ended, on a request that came to another process."""
        if not self.closed:
            self._session.end_for(requested_end(reason))

    async def write(self) -> None:
        """Save all changes; called by the writer.

        Raises:
            RegistryUnavailable: some changes are still to be saved.
            OwnerMoved: another process owns the session.
        """
        registry, fence = self._writer.registry, self.fence
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
            payload = self._session.payload()
            if self._retention_s is None:
                await registry.save(fence, payload)
            else:
                # False while a LiveAvatar session may still run: `stopped` saves again.
                self.closed = await registry.finish(fence, payload, retention_s=self._retention_s)
        except RegistryUnavailable:
            self.changed = True
            raise


class JournalWriter:
    """Writer of this process's session journals and of its lease. `run` is its one task.

    An outage of the registry refuses new sessions (`SessionJournal.minted`) and ends none: changes are saved when
    the registry works again.
    """

    def __init__(
        self,
        registry: Registry,
        metrics: Metrics,
        *,
        renew_s: float,
        lease_s: float,
        address: Callable[[], str] = str,
    ) -> None:
        """Prepare.

        Args:
            registry: Registry of all journals.
            metrics: Counts outages.
            renew_s: Renewal period of the lease.
            lease_s: Lifetime of the lease.
            address: Returns the address at which callers reach this process; empty until it serves.
        """
        self.registry = registry
        self._metrics = metrics
        self._address = address
        self._renew_s = renew_s
        self._lease_s = lease_s
        self._renewed_at_s: float | None = None
        """Time of the latest attempt to renew the lease; None before the first."""
        self._confirming: asyncio.Task[None] | None = None
        self._journals: dict[str, SessionJournal] = {}
        self._wakeup = Wakeup()
        self._outage = False

    @property
    def available(self) -> bool:
        """True if the latest use of the registry worked."""
        return not self._outage

    def open(self, session: JournaledSession, fence: Fence | None = None) -> SessionJournal:
        """Open the journal of a session; with a `fence`, of a claimed session."""
        journal = SessionJournal(self, session, fence)
        if fence is not None:
            self.add(journal)
        return journal

    def add(self, journal: SessionJournal) -> None:
        """Add a journal whose session is in the registry."""
        assert journal.fence is not None  # noqa: S101 - its session is in the registry
        self._journals[journal.fence.session_id] = journal

    def wake(self) -> None:
        """Have changes saved."""
        self._wakeup.set()

    async def write(self, journal: SessionJournal) -> bool:
        """Save the changes of a journal now; returns False in an outage, which keeps them for later."""
        works = True
        try:
            await journal.write()
        except RegistryUnavailable as error:
            journal.changed = True
            works = False
            self.note_outage(error)
        except OwnerMoved as error:
            journal.lose(error)
        else:
            self._note_recovery()
        if journal.closed and not journal.changed and journal.fence is not None:
            self._journals.pop(journal.fence.session_id, None)
        return works

    async def run(self) -> None:
        """Renew the lease and save changes, until cancelled."""
        renew_at_s = 0.0
        while True:
            try:
                if time.monotonic() >= renew_at_s:
                    renew_at_s = time.monotonic() + self._renew_s
                    await self._renew()
                await self.write_all()
            except Exception:  # noqa: BLE001 - the root of its task: without renewals, other processes would claim all sessions
                _log.exception("journal.crashed")
            await self._wakeup.wait(renew_at_s - time.monotonic())

    async def write_all(self) -> None:
        """Save every changed journal once; in an outage, the rest later.

        Each save may wait as long as another process holds a lock, and the lease is renewed in between.
        """
        for journal in [journal for journal in self._journals.values() if journal.changed]:
            faulty = True
            with bulkhead("journal.write_failed", journal.session_id):
                if not await self.write(journal):
                    return
                faulty = False
            if faulty:
                # Tried again at the next change; an immediate repetition would fail forever.
                journal.changed = False

    async def confirm_lease(self) -> None:
        """Renew a lease that ran out while this process stood still, before anything is sent for its sessions.

        Sessions that another process has claimed are given up. An outage of the registry ends none and is not
        waited for: attempts to renew continue in an outage, so that a gap in them proves a standstill.
        """
        if self._renewed_at_s is None or time.monotonic() < self._renewed_at_s + self._lease_s:
            return
        if self._confirming is None:
            _log.warning("journal.stood_still", late_s=round(time.monotonic() - self._renewed_at_s, 1))
            self._confirming = asyncio.create_task(self._confirm(), name="registry/confirm")
        await asyncio.wait([self._confirming], timeout=_CONFIRM_S)

    async def _confirm(self) -> None:
        try:
            await self._renew()
        except Exception:  # noqa: BLE001 - the root of its task
            _log.exception("journal.crashed")
        finally:
            self._confirming = None

    async def _renew(self) -> None:
        began_s = time.monotonic()
        try:
            await self._renew_all()
        finally:
            self._renewed_at_s = began_s

    async def _renew_all(self) -> None:
        before = [journal for journal in self._journals.values() if not journal.closed]
        try:
            mine = await self.registry.renew(self._address())
            end_requests = await self.registry.end_requests()
        except RegistryUnavailable as error:
            self.note_outage(error)
            return
        self._note_recovery()
        for journal in before:
            fence = journal.fence
            if fence is not None and not journal.closed and mine.get(fence.session_id) != fence.epoch:
                with bulkhead("journal.renew_failed", fence.session_id):
                    journal.lose(OwnerMoved(fence.session_id))
        for session_id, reason in end_requests.items():
            if (requested := self._journals.get(session_id)) is not None:
                with bulkhead("journal.end_failed", session_id):
                    requested.end_for(reason)

    def note_outage(self, error: RegistryUnavailable) -> None:
        """Take note of a failed use of the registry."""
        if not self._outage:
            self._outage = True
            self._metrics.registry_works(works=False)
            _log.error("registry.unavailable", error=error.detail)

    def _note_recovery(self) -> None:
        if self._outage:
            self._outage = False
            self._metrics.registry_works(works=True)
            _log.info("registry.available")


async def write_journals(journals: JournalWriter) -> None:
    """Run the writer until cancelled, then save the remaining changes."""
    try:
        await journals.run()
    except asyncio.CancelledError:
        await journals.write_all()
        raise
