"""The registry that keeps nothing: for a process that is to leave no trace, and takes its sessions with it."""

import contextlib
import time
import uuid
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Self

from liveavatar_gateway.core.errors import OwnerMoved
from liveavatar_gateway.registry.base import Fence, HandleHash, LeaseConfig, Payload, StoredSession, Upstream
from liveavatar_gateway.registry.lease import is_dead


@dataclass(slots=True)
class Memory:
    """What several registries of one process may share."""

    rows: dict[str, StoredSession] = field(default_factory=dict)
    accounts: dict[str, str] = field(default_factory=dict)
    requests: dict[str, str] = field(default_factory=dict)
    """Request ids by session."""
    leases: dict[str, float] = field(default_factory=dict)
    """End of the lease of each process, on the monotonic clock."""
    addresses: dict[str, str] = field(default_factory=dict)
    present: set[str] = field(default_factory=set)
    kept_until_s: dict[str, float] = field(default_factory=dict)
    quarantine: list[tuple[str, StoredSession]] = field(default_factory=list)
    """Why each was put aside, and as it was."""


class MemoryRegistry:
    """See `Registry`. It refuses and allows what any other does, but for surviving its process."""

    def __init__(
        self,
        config: LeaseConfig,
        *,
        account: str = "",
        retired_accounts: Sequence[str] = (),
        memory: Memory | None = None,
    ) -> None:
        self.owner = str(uuid.uuid4())
        self._config = config
        self.account = account
        self._orphans_of = (account, *retired_accounts)
        self._memory = memory or Memory()

    # --- this process

    async def __aenter__(self) -> Self:
        self._memory.present.add(self.owner)
        await self.renew("")
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self._memory.present.discard(self.owner)
        self._memory.leases.pop(self.owner, None)

    async def renew(self, address: str) -> Mapping[str, int]:
        self._memory.leases[self.owner] = time.monotonic() + self._config.ttl_s
        self._memory.addresses[self.owner] = address
        return {row.session_id: row.epoch for row in self._living() if row.owner == self.owner}

    async def wanted_ends(self) -> Mapping[str, str]:
        mine = (row for row in self._living() if row.owner == self.owner)
        return {row.session_id: row.end_wanted for row in mine if row.end_wanted}

    # --- its sessions

    async def create(self, session_id: str, facts: Payload) -> Fence:
        return self._insert(session_id, facts, "")

    async def reserve(
        self, session_id: str, facts: Payload, *, request_id: str, instead_of: str = ""
    ) -> Fence | None:
        newest = await self.find_request(request_id)
        if newest is not None and newest.session_id != instead_of:
            return None
        return self._insert(session_id, facts, request_id)

    def _insert(self, session_id: str, facts: Payload, request_id: str) -> Fence:
        self._memory.accounts[session_id] = self.account
        self._memory.requests[session_id] = request_id
        self._memory.rows[session_id] = StoredSession(
            session_id=session_id,
            owner=self.owner,
            epoch=1,
            ended=False,
            sequence=0,
            facts=facts,
            utterances=(),
            upstreams=(),
            handles=(),
            seen_mono_s=None,
            address="",
            account=self.account,
            saved_mono_s=time.monotonic(),
        )
        return Fence(session_id, 1)

    async def save(self, fence: Fence, facts: Payload) -> None:
        self._put(replace(self._own(fence), facts=facts, saved_mono_s=time.monotonic()))

    async def add_upstream(self, fence: Fence, upstream_session_id: str) -> None:
        row = self._own(fence)
        self._put(replace(row, upstreams=(*row.upstreams, Upstream(upstream_session_id))))

    async def save_access(self, fence: Fence, upstream_session_id: str, access: Payload) -> None:
        row = self._own(fence)
        if all(one.upstream_session_id != upstream_session_id for one in row.upstreams):
            raise OwnerMoved(fence.session_id)
        upstreams = tuple(
            Upstream(upstream_session_id, access) if one.upstream_session_id == upstream_session_id else one
            for one in row.upstreams
        )
        self._put(replace(row, upstreams=upstreams))

    async def drop_upstream(self, upstream_session_id: str) -> None:
        for row in list(self._memory.rows.values()):
            left = tuple(one for one in row.upstreams if one.upstream_session_id != upstream_session_id)
            if len(left) != len(row.upstreams):
                self._put(replace(row, upstreams=left))

    async def finish(self, fence: Fence, facts: Payload, *, keep_s: float) -> bool:
        row = replace(self._own(fence), facts=facts, saved_mono_s=time.monotonic())
        if row.upstreams:
            self._put(row)
            return False
        self._memory.kept_until_s[row.session_id] = time.monotonic() + keep_s
        self._put(replace(row, ended=True, utterances=()))
        return True

    def note_sequence(self, fence: Fence, sequence: int) -> None:
        self._note(fence, lambda row: replace(row, sequence=sequence))

    def note_utterance(self, fence: Fence, utterance_id: str, facts: Payload) -> None:
        self._note(
            fence,
            lambda row: replace(row, utterances=tuple({**dict(row.utterances), utterance_id: facts}.items())),
        )

    def note_handles(self, fence: Fence, handles: Sequence[HandleHash]) -> None:
        self._note(fence, lambda row: replace(row, handles=tuple(handles)))

    def forget_notes(self, fence: Fence) -> None:
        """Nothing to do: notes are in the row, and the row is its owner's."""

    def _note(self, fence: Fence, change: Callable[[StoredSession], StoredSession]) -> None:
        with contextlib.suppress(OwnerMoved):
            self._put(change(self._own(fence)))

    def _own(self, fence: Fence) -> StoredSession:
        row = self._memory.rows.get(fence.session_id)
        if row is None or (row.owner, row.epoch) != (self.owner, fence.epoch):
            raise OwnerMoved(fence.session_id)
        return row

    def _put(self, row: StoredSession) -> None:
        self._memory.rows[row.session_id] = row

    # --- sessions of others

    async def find(self, session_id: str) -> StoredSession | None:
        row = self._memory.rows.get(session_id)
        return self._seen(row) if row and self._memory.accounts[session_id] == self.account else None

    async def find_request(self, request_id: str) -> StoredSession | None:
        newest = reversed(self._memory.rows)
        found = next((name for name in newest if request_id and self._memory.requests[name] == request_id), None)
        return None if found is None else await self.find(found)

    async def abandoned(self, row: StoredSession) -> bool:
        return self._abandoned(row)

    def _abandoned(self, row: StoredSession) -> bool:
        return not row.ended and row.owner != self.owner and self._is_dead(row.owner)

    async def orphans(self) -> Sequence[StoredSession]:
        rows = [row for row in self._memory.rows.values() if not row.ended and row.account in self._orphans_of]
        return [self._seen(row) for row in rows if self._abandoned(row)]

    async def other_accounts(self) -> Mapping[str, int]:
        rows = self._memory.rows.values()
        left = (row for row in rows if row.account not in self._orphans_of and self._abandoned(row))
        return Counter(row.account for row in left)

    def _is_dead(self, owner: str) -> bool:
        until_mono_s = self._memory.leases.get(owner)
        return is_dead(
            None if until_mono_s is None else until_mono_s - time.monotonic(),
            seen_alive=owner in self._memory.present,
            grace_s=self._config.grace_s,
        )

    def _living(self) -> list[StoredSession]:
        accounts = self._memory.accounts
        rows = self._memory.rows.values()
        return [row for row in rows if not row.ended and accounts[row.session_id] == self.account]

    def _seen(self, row: StoredSession) -> StoredSession:
        until_mono_s = self._memory.leases.get(row.owner)
        seen_mono_s = None if until_mono_s is None else until_mono_s - self._config.ttl_s
        return replace(row, seen_mono_s=seen_mono_s, address=self._memory.addresses.get(row.owner, ""))

    async def owners_of(self, upstream_session_ids: Sequence[str]) -> Mapping[str, str]:
        return {
            one.upstream_session_id: row.session_id
            for row in self._memory.rows.values()
            if self._memory.accounts[row.session_id] == self.account
            for one in row.upstreams
            if one.upstream_session_id in upstream_session_ids
        }

    async def claim(self, row: StoredSession) -> Fence | None:
        known = self._memory.rows.get(row.session_id)
        if known is None or known.ended or (known.owner, known.epoch) != (row.owner, row.epoch):
            return None
        self._put(replace(known, owner=self.owner, epoch=row.epoch + 1))
        return Fence(row.session_id, row.epoch + 1)

    async def put_aside(self, fence: Fence, reason: str) -> None:
        row = self._own(fence)
        self._memory.quarantine.append((reason, row))
        self._put(replace(row, facts={}, handles=(), utterances=(), sequence=0))

    async def request_end(self, session_id: str, reason: str) -> None:
        row = await self.find(session_id)
        if row is not None and not row.ended and not row.end_wanted:
            self._put(replace(self._memory.rows[session_id], end_wanted=reason))

    async def page(self, after: str, size: int) -> Sequence[StoredSession]:
        rows = [row for row in self._memory.rows.values() if self._memory.accounts[row.session_id] == self.account]
        rows.reverse()
        start = next((index + 1 for index, row in enumerate(rows) if row.session_id == after), 0)
        return [self._seen(row) for row in rows[start : start + size]]

    async def tidy(self) -> None:
        now_s = time.monotonic()
        for session_id in [name for name, until_s in self._memory.kept_until_s.items() if until_s < now_s]:
            del self._memory.kept_until_s[session_id], self._memory.rows[session_id]
            del self._memory.requests[session_id]
        owners = {row.owner for row in self._memory.rows.values() if not row.ended}
        for owner in [name for name in self._memory.leases if name not in owners and self._is_dead(name)]:
            del self._memory.leases[owner]
