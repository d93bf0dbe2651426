"""Memory-mapped journal of the sessions of one process, in a file next to the database.

Writing copies bytes into shared memory: no system call, no lock, no wait for a disk. The operating system owns
those pages, so a killed process loses nothing that it wrote. The file holds ids, counts and digests, no secret.

The file is an array of slots and grows by `CHUNK_BYTES` at a time. A slot keeps a value in two copies that are
written in turn, each with a rising number and a checksum: a copy that a kill cut short is never believed, and the
copy before it still counts. An emptied slot has a newest copy without a value, so that its older copy does not
come back.
"""

import contextlib
import mmap
import os
import struct
import time
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import orjson

from liveavatar_gateway.guarded_files import UnsafeFile, open_own
from liveavatar_gateway.registry.sidecar import sidecar_path

COPY_BYTES: Final = 4096
SLOT_BYTES: Final = 2 * COPY_BYTES
CHUNK_BYTES: Final = 1 << 20
MAX_CHUNKS: Final = 64
"""Bound of the file, and so of the values that a crash leaves: 8192, more than 1000 talking sessions have."""
LOW_SLOTS: Final = 32
"""Number of free slots below which the file should grow, before it has to."""

_HEAD: Final = struct.Struct("<4sIQHH")
"""Magic, checksum of all bytes after it, number, length of the value, 1 for a compressed value."""
_BODY_BYTES: Final = COPY_BYTES - _HEAD.size
_MAGIC: Final = b"LAJ1"

_FRESH_S: Final = 60.0

SEQUENCE: Final = "sequence"
HANDLES: Final = "handles"
UTTERANCE: Final = "utterance"


@dataclass(frozen=True, slots=True)
class Entry:
    """Value in a journal."""

    session_id: str
    epoch: int
    kind: str
    name: str
    """Id of the utterance; empty for other kinds."""
    value: Any
    begun: int = 0
    """Number of its first write, which orders the utterances of a session."""


_Key = tuple[str, str, str]


class Journal:
    """Journal of this process. `grow` may wait for a disk; nothing else does."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor = -1
        self._chunks: list[mmap.mmap] = []
        self._free: list[int] = []
        self._slots: dict[_Key, tuple[int, int]] = {}
        self._by_session: dict[str, set[_Key]] = {}
        self._number = 0
        self._second: set[int] = set()
        """Slots whose second copy is the newer."""

    @property
    def should_grow(self) -> bool:
        """True when few slots are free and the file may still grow."""
        return len(self._free) < LOW_SLOTS and len(self._chunks) < MAX_CHUNKS

    def open(self) -> None:
        """Make the file, with access for its owner alone.

        Raises:
            OSError: the file cannot be made.
        """
        self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        self.add(self.grow())

    def grow(self) -> mmap.mmap:
        """Reserve room on the disk, to be used with `add`.

        Raises:
            OSError: the disk is full.
        """
        offset = len(self._chunks) * CHUNK_BYTES
        if hasattr(os, "posix_fallocate"):
            # Writing to a page of a sparse file ends the process when the disk is full.
            os.posix_fallocate(self._descriptor, offset, CHUNK_BYTES)
        else:
            os.pwrite(self._descriptor, bytes(CHUNK_BYTES), offset)
        chunk = mmap.mmap(self._descriptor, CHUNK_BYTES, offset=offset)
        for page in range(0, CHUNK_BYTES, COPY_BYTES):
            # The first write to a page maps it, which the event loop must not wait for.
            chunk[page] = 0
        return chunk

    def add(self, chunk: mmap.mmap) -> None:
        """Add the slots of a chunk that `grow` reserved."""
        first = len(self._chunks) * (CHUNK_BYTES // SLOT_BYTES)
        self._chunks.append(chunk)
        self._free += range(first, first + CHUNK_BYTES // SLOT_BYTES)

    def write(self, entry: Entry) -> bool:
        """Write a value in place of its former value; False without room."""
        key = (entry.session_id, entry.kind, entry.name)
        slot, begun = self._slots.get(key) or (-1, self._number + 1)
        body = orjson.dumps([entry.session_id, entry.epoch, entry.kind, entry.name, entry.value, begun])
        packed = len(body) > _BODY_BYTES
        if packed:
            body = zlib.compress(body, 1)
        if len(body) > _BODY_BYTES:
            # The former value is out of date.
            self.remove(*key)
            return False
        if slot < 0:
            if not self._free:
                return False
            slot = self._free.pop()
            self._slots[key] = (slot, begun)
            self._by_session.setdefault(entry.session_id, set()).add(key)
        self._put(slot, body, packed=packed)
        return True

    def remove(self, session_id: str, kind: str, name: str) -> None:
        """Empty the slot of a value, if the value has a slot."""
        key = (session_id, kind, name)
        if (known := self._slots.pop(key, None)) is not None:
            slot, _ = known
            self._put(slot, b"", packed=False)
            self._free.append(slot)
            keys = self._by_session[session_id]
            keys.discard(key)
            if not keys:
                del self._by_session[session_id]

    def remove_session(self, session_id: str) -> None:
        """Empty all slots of a session."""
        for key in list(self._by_session.get(session_id, ())):
            self.remove(*key)

    def _put(self, slot: int, body: bytes, *, packed: bool) -> None:
        self._number += 1
        index, position = divmod(slot, CHUNK_BYTES // SLOT_BYTES)
        offset = position * SLOT_BYTES
        if slot in self._second:
            self._second.discard(slot)
        else:
            self._second.add(slot)
            offset += COPY_BYTES
        covered = struct.pack("<QHH", self._number, len(body), packed) + body
        copy = _MAGIC + struct.pack("<I", zlib.crc32(covered)) + covered
        self._chunks[index][offset : offset + len(copy)] = copy

    def close(self, *, keep: bool) -> None:
        """Close the file, and remove it unless `keep` is set. Idempotent."""
        for chunk in self._chunks:
            chunk.close()
        self._chunks.clear()
        self._free.clear()
        self._slots.clear()
        self._by_session.clear()
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
            if not keep:
                with contextlib.suppress(OSError):
                    self._path.unlink()


def _whole(descriptor: int) -> bytes:
    with open(descriptor, "rb", closefd=False) as file:
        return file.read()


def read_journal(path: Path) -> dict[str, list[Entry]]:
    """Return the entries of a journal by session; no entries without a file.

    A copy that cannot be read is skipped, and no other value with it.
    """
    try:
        with open_own(path, os.O_RDONLY) as descriptor:
            content = _whole(descriptor)
    except (OSError, UnsafeFile):
        return {}
    found: dict[str, list[Entry]] = {}
    for entry in _newest(content):
        found.setdefault(entry.session_id, []).append(entry)
    return found


def _newest(content: bytes) -> Iterable[Entry]:
    """Return the newest entry of each value, in the order of their first writes."""
    numbered: dict[tuple[_Key, int], tuple[int, Entry]] = {}
    for offset in range(0, len(content) - SLOT_BYTES + 1, SLOT_BYTES):
        copies = [copy for copy in (_copy(content, offset), _copy(content, offset + COPY_BYTES)) if copy]
        if not copies:
            continue
        number, body, packed = max(copies)
        if body and (entry := _entry(body, packed=packed)) is not None:
            key = ((entry.session_id, entry.kind, entry.name), entry.epoch)
            if key not in numbered or numbered[key][0] < number:
                numbered[key] = (number, entry)
    return sorted((entry for _, entry in numbered.values()), key=lambda entry: entry.begun)


def _copy(content: bytes, offset: int) -> tuple[int, bytes, int] | None:
    magic, checksum, number, length, packed = _HEAD.unpack_from(content, offset)
    if magic != _MAGIC or length > _BODY_BYTES:
        return None
    covered = content[offset + 8 : offset + _HEAD.size + length]
    if zlib.crc32(covered) != checksum:
        return None
    return number, content[offset + _HEAD.size : offset + _HEAD.size + length], packed


def _entry(body: bytes, *, packed: int) -> Entry | None:
    try:
        session_id, epoch, kind, name, value, begun = orjson.loads(zlib.decompress(body) if packed else body)
    except (ValueError, TypeError, zlib.error):
        return None
    return Entry(session_id, epoch, kind, name, value, begun)


class JournalFolder:
    """Journals of all processes that share a database."""

    def __init__(self, database: Path) -> None:
        self._database = database

    def path(self, owner: str) -> Path:
        """Return the path of a process's journal.

        Raises:
            FileNotFoundError: no process has such an id.
        """
        return sidecar_path(self._database, owner, "journal")

    def read(self, owner: str) -> dict[str, list[Entry]]:
        """Return the entries of a process by session."""
        try:
            path = self.path(owner)
        except FileNotFoundError:
            return {}
        return read_journal(path)

    def owners(self) -> Iterator[str]:
        """Yield the processes that have a journal."""
        prefix = f"{self._database.name}."
        for path in self._database.parent.glob(f"{self._database.name}.*.journal"):
            yield path.name.removeprefix(prefix).removesuffix(".journal")

    def is_fresh(self, owner: str) -> bool:
        """Return whether a journal is so recent that its process may have no lease yet."""
        try:
            return time.time() - self.path(owner).stat().st_mtime < _FRESH_S
        except OSError:
            return False

    def remove(self, owner: str) -> None:
        """Remove the journal of a dead process."""
        with contextlib.suppress(OSError):
            self.path(owner).unlink()
