"""Wrappers that make any registry slow or unavailable at times, as a remote one is."""

import asyncio
import functools
import inspect
from collections import Counter
from typing import Any, Self

from liveavatar_gateway.core.errors import RegistryUnavailable


class _Wrapped:
    """A registry whose awaited calls pass through `_call`; the calls that never wait are passed on as they are."""

    def __init__(self, registry: Any) -> None:
        self.registry = registry

    def __getattr__(self, name: str) -> Any:
        value = getattr(self.registry, name)
        if not inspect.iscoroutinefunction(value):
            return value
        return functools.partial(self._call, name)

    async def __aenter__(self) -> Self:
        await self.registry.__aenter__()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.registry.__aexit__(*exc_info)

    async def _call(self, name: str, *args: Any, **options: Any) -> Any:
        raise NotImplementedError


class SlowRegistry(_Wrapped):
    """Waits before and after each awaited call: others act in between, and answers are late."""

    def __init__(self, registry: Any, delay_s: float = 0.003) -> None:
        super().__init__(registry)
        self.delay_s = delay_s

    async def _call(self, name: str, *args: Any, **options: Any) -> Any:
        await asyncio.sleep(self.delay_s)
        try:
            return await getattr(self.registry, name)(*args, **options)
        finally:
            await asyncio.sleep(self.delay_s)


class FlappingRegistry(_Wrapped):
    """Refuses every n-th awaited call of each method before anything has changed.

    The count is kept per method, or a loop of n calls would be refused at the same call forever.
    """

    def __init__(self, registry: Any, every: int = 2) -> None:
        super().__init__(registry)
        self.every = every
        self.calls: Counter[str] = Counter()

    async def _call(self, name: str, *args: Any, **options: Any) -> Any:
        self.calls[name] += 1
        if self.calls[name] % self.every == 0:
            raise RegistryUnavailable("the registry flaps")
        return await getattr(self.registry, name)(*args, **options)


class RetryingRegistry(_Wrapped):
    """Repeats each awaited call until the registry works: what a refused call left behind would be seen."""

    async def _call(self, name: str, *args: Any, **options: Any) -> Any:
        while True:
            try:
                return await getattr(self.registry, name)(*args, **options)
            except RegistryUnavailable:
                await asyncio.sleep(0)
