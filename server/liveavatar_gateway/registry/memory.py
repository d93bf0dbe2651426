"""Registry in memory: leaves no trace, and its sessions end with the process."""

import contextlib
import time
import uuid
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Self, TypeVar

from liveavatar_gateway.core.errors import OwnerMoved
from liveavatar_gateway.pool.book import Book
from liveavatar_gateway.registry.base import Fence, HandleHash, LeaseConfig, Payload, StoredSession, Upstream
from liveavatar_gateway.registry.lease import is_dead
from liveavatar_gateway.registry.pool import PoolChange
from liveavatar_gateway.registry.usage import NO_LIMITS, Charge, Charged, Limits, Spent, UsageKey, UsageRow
from liveavatar_gateway.registry.usage_memory import UsageMemory

_Result = TypeVar("_Result")


@dataclass(slots=True)
class Memory:
    """State that several registries of a process may share."""

    sessions: dict[str, StoredSession] = field(default_factory=dict)
    requests: dict[str, tuple[str, str]] = field(default_factory=dict)
    """Tenant and request id of each session."""
    leases: dict[str, float] = field(default_factory=dict)
    """End of the lease of each process, on the monotonic clock."""
    addresses: dict[str, str] = field(default_factory=dict)
    present: set[str] = field(default_factory=set)
    kept_until_s: dict[str, float] = field(default_factory=dict)
    quarantine: list[tuple[str, StoredSession]] = field(default_factory=list)
    """Reason and content of each unreadable session."""
    usage: UsageMemory = field(default_factory=UsageMemory)
    book: Book = field(default_factory=lambda: Book(generation=str(uuid.uuid4())))
    """Permits and queue."""
    book_version: int = 0


class MemoryRegistry:
    """Registry with the rules of every other, except that it does not survive its process; see `Registry`."""

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
        self.use_accounts((account,), retired_accounts)
        self._memory = memory or Memory()

    def use_accounts(self, own: Sequence[str], retired: Sequence[str] = ()) -> None:
        self._own_accounts = frozenset((self.account, *own))
        self._known = self._own_accounts | frozenset(retired)

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
        return {stored.session_id: stored.epoch for stored in self._living() if stored.owner == self.owner}

    async def end_requests(self) -> Mapping[str, str]:
        owned = (stored for stored in self._living() if stored.owner == self.owner)
        return {stored.session_id: stored.end_request for stored in owned if stored.end_request}

    # --- its sessions

    async def create(self, session_id: str, payload: Payload, *, tenant: str = "") -> Fence:
        return self._insert(session_id, payload, tenant, "")

    async def reserve(
        self, session_id: str, payload: Payload, *, tenant: str, request_id: str, instead_of: str = ""
    ) -> Fence | None:
        newest = await self.find_request(request_id, tenant=tenant)
        if newest is not None and newest.session_id != instead_of:
            return None
        return self._insert(session_id, payload, tenant, request_id)

    def _insert(self, session_id: str, payload: Payload, tenant: str, request_id: str) -> Fence:
        self._memory.requests[session_id] = (tenant, request_id)
        self._memory.sessions[session_id] = StoredSession(
            session_id=session_id,
            owner=self.owner,
            epoch=1,
            ended=False,
            sequence=0,
            payload=payload,
            utterances=(),
            upstreams=(),
            handles=(),
            seen_mono_s=None,
            address="",
            account=self.account,
            tenant=tenant,
            saved_mono_s=time.monotonic(),
        )
        return Fence(session_id, 1)

    async def save(self, fence: Fence, payload: Payload) -> None:
        self._put(replace(self._own(fence), payload=payload, saved_mono_s=time.monotonic()))

    async def add_upstream(
        self, fence: Fence, upstream_session_id: str, *, account: str = "", permit_id: str = ""
    ) -> None:
        stored = self._own(fence)
        added = Upstream(upstream_session_id, account=account or self.account)
        self._put(replace(stored, upstreams=(*stored.upstreams, added)))
        self._memory.book.link(permit_id, upstream_session_id)

    async def move_upstream(self, source: Fence, target: Fence, upstream_session_id: str) -> None:
        before, after = self._own(source), self._own(target)
        moved = [known for known in before.upstreams if known.upstream_session_id == upstream_session_id]
        if not moved:
            raise OwnerMoved(source.session_id)
        remaining = tuple(known for known in before.upstreams if known not in moved)
        self._put(replace(before, upstreams=remaining))
        self._put(replace(after, upstreams=(*after.upstreams, *moved)))

    async def save_access(self, fence: Fence, upstream_session_id: str, access: Payload) -> None:
        stored = self._own(fence)
        upstreams = {known.upstream_session_id: known for known in stored.upstreams}
        if upstream_session_id not in upstreams:
            raise OwnerMoved(fence.session_id)
        upstreams[upstream_session_id] = replace(upstreams[upstream_session_id], access=access)
        self._put(replace(stored, upstreams=tuple(upstreams.values())))

    async def drop_upstream(self, upstream_session_id: str) -> None:
        for stored in list(self._memory.sessions.values()):
            remaining = [known for known in stored.upstreams if known.upstream_session_id != upstream_session_id]
            if len(remaining) != len(stored.upstreams):
                self._put(replace(stored, upstreams=tuple(remaining)))

    async def finish(self, fence: Fence, payload: Payload, *, retention_s: float) -> bool:
        stored = replace(self._own(fence), payload=payload, saved_mono_s=time.monotonic())
        if stored.upstreams:
            self._put(stored)
            return False
        self._memory.kept_until_s[stored.session_id] = time.monotonic() + retention_s
        self._put(replace(stored, ended=True, utterances=()))
        return True

    def journal_sequence(self, fence: Fence, sequence: int) -> None:
        self._journal(fence, lambda stored: replace(stored, sequence=sequence))

    def journal_utterance(self, fence: Fence, utterance_id: str, payload: Payload) -> None:
        self._journal(
            fence,
            lambda stored: replace(
                stored, utterances=tuple({**dict(stored.utterances), utterance_id: payload}.items())
            ),
        )

    def journal_handles(self, fence: Fence, handles: Sequence[HandleHash]) -> None:
        self._journal(fence, lambda stored: replace(stored, handles=tuple(handles)))

    def discard_journal(self, fence: Fence) -> None:
        """Do nothing: journaled values are in the stored session, which its owner keeps."""

    def _journal(self, fence: Fence, change: Callable[[StoredSession], StoredSession]) -> None:
        with contextlib.suppress(OwnerMoved):
            self._put(change(self._own(fence)))

    def _own(self, fence: Fence) -> StoredSession:
        stored = self._memory.sessions.get(fence.session_id)
        if stored is None or (stored.owner, stored.epoch) != (self.owner, fence.epoch):
            raise OwnerMoved(fence.session_id)
        return stored

    def _put(self, stored: StoredSession) -> None:
        self._memory.sessions[stored.session_id] = stored

    # --- sessions of others

    async def find(self, session_id: str) -> StoredSession | None:
        stored = self._memory.sessions.get(session_id)
        return self._seen(stored) if stored and stored.account in self._own_accounts else None

    async def find_request(self, request_id: str, *, tenant: str) -> StoredSession | None:
        newest, asked = reversed(self._memory.sessions), (tenant, request_id)
        found = next((name for name in newest if request_id and self._memory.requests[name] == asked), None)
        return None if found is None else await self.find(found)

    async def is_abandoned(self, stored: StoredSession) -> bool:
        return self._abandoned(stored)

    def _abandoned(self, stored: StoredSession) -> bool:
        return not stored.ended and stored.owner != self.owner and self._is_dead(stored.owner)

    async def orphans(self) -> Sequence[StoredSession]:
        orphans = (stored for stored in self._memory.sessions.values() if self._abandoned(stored))
        return [
            self._seen(stored)
            for stored in orphans
            if stored.account in self._known and stored.runs_on(self._known)
        ]

    async def other_accounts(self) -> Mapping[str, int]:
        orphans = (stored for stored in self._memory.sessions.values() if self._abandoned(stored))
        accounts = (
            account
            for stored in orphans
            for account in {known.account or stored.account for known in stored.upstreams} or {stored.account}
        )
        return Counter(account for account in accounts if account not in self._known)

    def _is_dead(self, owner: str) -> bool:
        until_mono_s = self._memory.leases.get(owner)
        return is_dead(
            None if until_mono_s is None else until_mono_s - time.monotonic(),
            seen_alive=owner in self._memory.present,
            grace_s=self._config.grace_s,
        )

    def _living(self) -> list[StoredSession]:
        return [stored for stored in self._mine() if not stored.ended]

    def _mine(self) -> list[StoredSession]:
        return [stored for stored in self._memory.sessions.values() if stored.account in self._own_accounts]

    def _seen(self, stored: StoredSession) -> StoredSession:
        until_mono_s = self._memory.leases.get(stored.owner)
        seen_mono_s = None if until_mono_s is None else until_mono_s - self._config.ttl_s
        return replace(stored, seen_mono_s=seen_mono_s, address=self._memory.addresses.get(stored.owner, ""))

    async def session_ids(self, upstream_session_ids: Sequence[str]) -> Mapping[str, str]:
        return {
            upstream.upstream_session_id: stored.session_id
            for stored in self._mine()
            for upstream in stored.upstreams
            if upstream.upstream_session_id in upstream_session_ids
        }

    async def claim(self, stored: StoredSession) -> Fence | None:
        known = self._memory.sessions.get(stored.session_id)
        if known is None or known.ended or (known.owner, known.epoch) != (stored.owner, stored.epoch):
            return None
        self._put(replace(known, owner=self.owner, epoch=stored.epoch + 1))
        return Fence(stored.session_id, stored.epoch + 1)

    async def quarantine(self, fence: Fence, reason: str) -> None:
        stored = self._own(fence)
        self._memory.quarantine.append((reason, stored))
        self._put(replace(stored, payload={}, handles=(), utterances=(), sequence=0))

    async def request_end(self, session_id: str, reason: str) -> None:
        stored = await self.find(session_id)
        if stored is not None and not stored.ended and not stored.end_request:
            self._put(replace(self._memory.sessions[session_id], end_request=reason))

    async def page(self, after: str, size: int) -> Sequence[StoredSession]:
        sessions = self._mine()[::-1]
        start = next((index + 1 for index, stored in enumerate(sessions) if stored.session_id == after), 0)
        return [self._seen(stored) for stored in sessions[start : start + size]]

    async def purge(self) -> None:
        now_s = time.monotonic()
        for session_id in [name for name, until_s in self._memory.kept_until_s.items() if until_s < now_s]:
            del self._memory.kept_until_s[session_id], self._memory.sessions[session_id]
            del self._memory.requests[session_id]
        owners = {stored.owner for stored in self._memory.sessions.values() if not stored.ended}
        for owner in [name for name in self._memory.leases if name not in owners and self._is_dead(name)]:
            del self._memory.leases[owner]

    # --- permits and queue

    async def pool(self, change: PoolChange[_Result]) -> tuple[_Result, int]:
        book = self._memory.book.copy()
        for owner in book.owners - {self.owner}:
            if self._is_dead(owner):
                book.suspect(owner)
        book.running = frozenset(
            known.upstream_session_id for stored in self._memory.sessions.values() for known in stored.upstreams
        )
        result = change(book, time.monotonic())
        book.running = frozenset()
        if book != self._memory.book:
            self._memory.book = book
            self._memory.book_version += 1
        return result, self._memory.book_version

    async def pool_version(self) -> int:
        return self._memory.book_version

    # --- usage

    async def charge(self, charge: Charge, *, limits: Limits = NO_LIMITS) -> Spent:
        return self._memory.usage.charge(charge, limits)

    async def transfer_charge(self, charge: Charge, *, former: str) -> None:
        self._memory.usage.transfer(charge, former)

    async def refund(self, charge_id: str) -> None:
        self._memory.usage.refund(charge_id)

    async def charged(self, charge_ids: Sequence[str]) -> Mapping[str, Charged]:
        return self._memory.usage.charged(charge_ids)

    async def spent(self, tenant: str, hour: int) -> Spent:
        return self._memory.usage.spent(tenant, hour)

    async def usage(
        self, *, tenant: str | None, first_day: int, last_day: int, after: UsageKey, size: int
    ) -> Sequence[UsageRow]:
        return self._memory.usage.rows(
            tenant=tenant, first_day=first_day, last_day=last_day, after=after, size=size
        )

    async def tidy_usage(self, hour: int) -> None:
        living = [stored for stored in self._memory.sessions.values() if not stored.ended]
        upstreams = {known.upstream_session_id for stored in living for known in stored.upstreams}
        self._memory.usage.tidy(hour, upstreams | {stored.session_id for stored in living})
