"""Order in which waiters get permits during one decision: fair between tenants, floors and ceilings respected."""

from collections.abc import Iterable, Iterator, Mapping
from heapq import heapify, heappop, heappush
from itertools import count

from liveavatar_gateway.pool.fair_order import MIN_WEIGHT, Shares
from liveavatar_gateway.pool.rows import PermitKind, PermitRow, Waiter


class GrantOrder:
    """Order of the waiters during one decision; each grant is recorded in it."""

    def __init__(
        self,
        waiters: Iterable[Waiter],
        permits: Iterable[PermitRow],
        shares: Shares,
        *,
        times: Mapping[str, float],
        charges_s: Mapping[str, float],
    ) -> None:
        """Begin with the present waiters and permits.

        Args:
            waiters: Waiters whose deadline has not passed.
            permits: Permits in use.
            shares: Weights, floors and ceilings of the tenants.
            times: Virtual time of each tenant that waits.
            charges_s: Slot-seconds that each of them is charged for a permit.
        """
        self._shares = dict(shares.by_tenant)
        self._times = dict(times)
        self._charges_s = charges_s
        self._lanes: dict[tuple[bool, str], list[Waiter]] = {}
        for waiter in sorted(waiters, key=lambda waiter: waiter.number):
            self._shares.setdefault(waiter.tenant, shares.of(waiter.tenant))
            self._lanes.setdefault((waiter.kind is PermitKind.WARM, waiter.tenant), []).append(waiter)
        self._held: dict[str, int] = {}
        for row in permits:
            if row.counts_for_tenant:
                self._held[row.tenant] = self._held.get(row.tenant, 0) + 1

    def lanes(self) -> list[tuple[tuple[bool, bool, float, int], str, list[Waiter]]]:
        """Return tenants with their waiters, the tenant that is served next first."""
        lanes = [
            (self._key(warm=warm, tenant=tenant, number=waiters[0].number), tenant, waiters)
            for (warm, tenant), waiters in self._lanes.items()
            if waiters
        ]
        return sorted(lanes, key=lambda lane: lane[0])

    def _key(self, *, warm: bool, tenant: str, number: int) -> tuple[bool, bool, float, int]:
        return warm, self._missing(tenant) == 0, self._times[tenant], number

    def _missing(self, tenant: str) -> int:
        """Return the permits that a tenant lacks to its floor."""
        share = self._shares.get(tenant)
        return 0 if share is None else max(0, share.floor - self._held.get(tenant, 0))

    def is_at_ceiling(self, tenant: str) -> bool:
        """Return whether a tenant has as many permits as it may have."""
        ceiling = self._shares[tenant].ceiling
        return ceiling is not None and self._held.get(tenant, 0) >= ceiling

    def keeps_floors(self, tenant: str, account: str, free: Mapping[str, int]) -> bool:
        """Return whether the floors of the others can still be met once a tenant has a permit of an account."""
        missing = {of: count for of in self._shares if of != tenant and (count := self._missing(of))}
        if not missing:
            return True
        left = {name: max(0, count - (name == account)) for name, count in free.items()}
        before = {name: max(0, count) for name, count in free.items()}
        # Where floors cannot be met anyway, a grant may not make it worse.
        return self._met(missing, left) >= self._met(missing, before)

    def _met(self, missing: Mapping[str, int], free: Mapping[str, int]) -> int:
        """Return how many of the missing permits the free ones can meet: a maximum flow to the accounts."""
        given: dict[tuple[str, str], int] = {}
        left = dict(free)

        def find(tenant: str, seen: set[str]) -> bool:
            for account in self._shares[tenant].accounts or tuple(free):
                if account not in free or account in seen:
                    continue
                seen.add(account)
                if left[account] > 0:
                    left[account] -= 1
                else:
                    other = next(
                        (of for (of, on), n in given.items() if on == account and n and find(of, seen)), None
                    )
                    if other is None:
                        continue
                    given[other, account] -= 1
                given[tenant, account] = given.get((tenant, account), 0) + 1
                return True
            return False

        return sum(find(tenant, set()) for tenant, count in missing.items() for _ in range(count))

    def granted(self, waiter: Waiter) -> None:
        """Record a grant."""
        tenant = waiter.tenant
        self._lanes[waiter.kind is PermitKind.WARM, tenant].remove(waiter)
        self._held[tenant] = self._held.get(tenant, 0) + 1
        self._times[tenant] += self._charges_s[tenant] / max(self._shares[tenant].weight, MIN_WEIGHT)

    def forecast(self) -> Iterator[Waiter]:
        """Yield the waiters in the order in which they would be served if they could use any permit."""
        turn = count()
        heap = [(key, next(turn), tenant, waiters, 0) for key, tenant, waiters in self.lanes()]
        heapify(heap)
        while heap:
            key, _, tenant, waiters, index = heappop(heap)
            waiter = waiters[index]
            yield waiter
            self._held[tenant] = self._held.get(tenant, 0) + 1
            self._times[tenant] += self._charges_s[tenant] / max(self._shares[tenant].weight, MIN_WEIGHT)
            if index + 1 < len(waiters):
                key = self._key(warm=key[0], tenant=tenant, number=waiters[index + 1].number)
                heappush(heap, (key, next(turn), tenant, waiters, index + 1))
