"""Journaled values of this process's sessions: in memory for the next save, and in the journal for a crash.

The event loop writes here and waits for no disk. A value stays until a save has moved it into the tables.
"""

import asyncio
import mmap
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from liveavatar_gateway.registry.base import Fence, HandleHash, Payload
from liveavatar_gateway.registry.fault_log import FaultLog
from liveavatar_gateway.registry.journal import HANDLES, SEQUENCE, UTTERANCE, Entry, Journal

MAX_UTTERANCES: Final = 320
"""Bound per session, ended utterances included; above `SpeechConfig.remembered_utterances`."""


@dataclass(slots=True)
class Journaled:
    """Values of a session that are not in the tables yet."""

    fence: Fence
    sequence: int | None = None
    handles: tuple[HandleHash, ...] | None = None
    utterances: dict[str, Payload] = field(default_factory=dict)

    def copy(self) -> "Journaled":
        """Return the values for a write; values that are journaled meanwhile are not in it."""
        return Journaled(self.fence, self.sequence, self.handles, dict(self.utterances))

    @classmethod
    def read(cls, entries: Iterable[Entry], epoch: int, fence: Fence) -> "Journaled":
        """Return the values that an owner journaled under its epoch, as values under another fence."""
        values = cls(fence)
        for entry in entries:
            if entry.epoch != epoch:
                continue
            match entry.kind, entry.value:
                case "sequence", int(sequence):
                    values.sequence = sequence
                case "utterance", dict(payload):
                    values.utterances[entry.name] = payload
                case "handles", list(packed):
                    values.handles = unpack_handles(packed)
                case _:
                    pass
        return values


class JournalBuffer:
    """Values that sessions of this process journaled since their last save."""

    def __init__(self, faults: FaultLog, run_beside: Callable[[Callable[[], mmap.mmap]], Any]) -> None:
        """Begin without a journal, which `attach` adds.

        Args:
            faults: Log of values that the journal has no room for.
            run_beside: Runs a function on a thread and returns its future.
        """
        self._faults = faults
        self._run_beside = run_beside
        self._journal: Journal | None = None
        self._growing: asyncio.Future[mmap.mmap] | None = None
        self._sessions: dict[str, Journaled] = {}

    def attach(self, journal: Journal) -> None:
        """Write to an open journal from now on."""
        self._journal = journal

    async def settle(self) -> list[Journaled]:
        """Wait until the file has grown; returns all values that are in no table yet."""
        if self._growing is not None:
            await asyncio.wait([self._growing])
        return [values.copy() for values in self._sessions.values()]

    def close(self, *, keep: bool) -> None:
        """Close the journal; `keep` leaves the file for the next owner of the sessions. Idempotent."""
        if self._journal is not None:
            self._journal.close(keep=keep)
            self._journal = None

    def sequence(self, fence: Fence, sequence: int) -> None:
        """Journal the number of the last event."""
        self.of(fence).sequence = sequence
        self._write(Entry(fence.session_id, fence.epoch, SEQUENCE, "", sequence))

    def utterance(self, fence: Fence, utterance_id: str, payload: Payload) -> None:
        """Journal the progress of an utterance."""
        utterances = self.of(fence).utterances
        utterances[utterance_id] = payload
        if len(utterances) > MAX_UTTERANCES:
            oldest = next(iter(utterances))
            del utterances[oldest]
            if self._journal is not None:
                self._journal.remove(fence.session_id, UTTERANCE, oldest)
        self._write(Entry(fence.session_id, fence.epoch, UTTERANCE, utterance_id, payload))

    def handles(self, fence: Fence, handles: Sequence[HandleHash]) -> None:
        """Journal the handles of a session."""
        self.of(fence).handles = tuple(handles)
        self._write(Entry(fence.session_id, fence.epoch, HANDLES, "", pack_handles(handles)))

    def of(self, fence: Fence) -> Journaled:
        """Return the values of a session, to be changed in place."""
        values = self._sessions.get(fence.session_id)
        if values is None or values.fence.epoch < fence.epoch:
            if values is not None:
                self.discard(values.fence)
            values = self._sessions[fence.session_id] = Journaled(fence)
        if values.fence.epoch > fence.epoch:
            # This process owned the session before and owns it again: nobody will ask for these values.
            return Journaled(fence)
        return values

    def _write(self, entry: Entry) -> None:
        journal = self._journal
        if journal is None or self._sessions[entry.session_id].fence.epoch != entry.epoch:
            return
        if not journal.write(entry):
            self._faults.error(entry.session_id, "registry.journal_full", what=entry.kind)
        if journal.should_grow and self._growing is None:
            self._growing = self._run_beside(journal.grow)
            self._growing.add_done_callback(self._grown)

    def _grown(self, growing: "asyncio.Future[mmap.mmap]") -> None:
        self._growing = None
        if growing.cancelled() or self._journal is None:
            return
        if (error := growing.exception()) is not None:
            self._faults.error("", "registry.journal_full", what=str(error))
        else:
            self._journal.add(growing.result())

    def saved(self, values: Journaled, written: Journaled) -> None:
        """Remove values that a save has moved into the tables, unless they have changed since."""
        values.sequence = None if values.sequence == written.sequence else values.sequence
        values.handles = None if values.handles is written.handles else values.handles
        for name, payload in written.utterances.items():
            if values.utterances.get(name) is payload:
                del values.utterances[name]
                if self._journal is not None and self._sessions.get(values.fence.session_id) is values:
                    self._journal.remove(values.fence.session_id, UTTERANCE, name)

    def discard(self, fence: Fence) -> None:
        """Remove the values of a session up to the epoch of a fence."""
        values = self._sessions.get(fence.session_id)
        if values is not None and values.fence.epoch <= fence.epoch:
            del self._sessions[fence.session_id]
            if self._journal is not None:
                self._journal.remove_session(fence.session_id)


def pack_handles(handles: Sequence[HandleHash]) -> list[tuple[str, float | None]]:
    """Return handles as JSON values."""
    return [(handle.sha256, handle.until_mono_s) for handle in handles]


def unpack_handles(packed: Sequence[Any]) -> tuple[HandleHash, ...] | None:
    """Return the handles that `pack_handles` packed; None when they are damaged."""
    handles = []
    for entry in packed:
        match entry:
            case [str(sha256), None | int() | float() as until_mono_s]:
                handles.append(HandleHash(sha256, until_mono_s))
            case _:
                return None
    return tuple(handles)
