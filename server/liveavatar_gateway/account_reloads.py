"""Reloads of LiveAvatar keys, accounts, profiles of warm sessions, and the secret of the LiveKit server."""

from collections.abc import Callable, Collection
from dataclasses import replace
from typing import Final

from liveavatar_gateway.config import Settings, components, pool_file, read_secret
from liveavatar_gateway.config.pool_file import PoolFile
from liveavatar_gateway.registry.base import Registry
from liveavatar_gateway.reloading import FileReloads
from liveavatar_gateway.rooms.tokens import LiveKitRooms
from liveavatar_gateway.sessions.warm_pool import WarmPool
from liveavatar_gateway.upstream.accounts import Accounts
from liveavatar_gateway.upstream.operations import PoolReload

_API_KEY: Final = "LiveAvatar API key"
_ACCOUNTS: Final = "file of accounts"
_LIVEKIT: Final = "LiveKit secret"
_SETTLE_S: Final = 0.3
"""Time for which the file of accounts must be unchanged: half of it may be a valid file."""


class AccountReloads:
    """Files of keys and accounts, which are read again on SIGHUP, on change, or when an operator asks for it."""

    def __init__(
        self,
        settings: Settings,
        reloads: FileReloads,
        accounts: Accounts,
        registry: Registry,
        warm: WarmPool,
        *,
        on_change: Callable[[], object],
    ) -> None:
        """Prepare; nothing is read before `watch`.

        Args:
            settings: Names of the files.
            reloads: Reads them again.
            accounts: Use the keys.
            registry: Has to know the names of the accounts.
            warm: Uses the profiles.
            on_change: Called when an account may work again.
        """
        self._settings = settings
        self._reloads = reloads
        self._accounts = accounts
        self._registry = registry
        self._warm = warm
        self._on_change = on_change

    def watch(
        self,
        content: PoolFile | None,
        rooms: LiveKitRooms | None,
        *,
        tenants: Callable[[], Collection[str] | None],
    ) -> None:
        """Register the files, except those of secrets for which a variable takes precedence.

        Args:
            content: File of accounts as it was read at the start; None without one.
            rooms: LiveKit server of the gateway; None without one.
            tenants: Returns the present tenants, whose names the file of accounts may use; None without a file of
                tenants.
        """
        settings = self._settings
        if (key_file := settings.api_key_file) and settings.uses_file("api_key"):
            self._reloads.add(_API_KEY, (key_file,), lambda: read_secret("api_key", key_file), self._use_key)
        secret_file = settings.livekit_secret_file
        if rooms is not None and secret_file and settings.uses_file("livekit_secret"):
            self._reloads.add(
                _LIVEKIT,
                (secret_file,),
                lambda: read_secret("livekit_secret", secret_file),
                rooms.use_secret,
            )
        if (file := settings.pool_file) is None or content is None:
            return
        self._reloads.add(
            _ACCOUNTS,
            (file, *content.key_files),
            lambda: pool_file.read(file, tenants=tenants()),
            self._use_accounts,
            watched=True,
            settle_s=_SETTLE_S,
            files_of=lambda now: (file, *now.key_files),
        )

    async def read_again(self) -> PoolReload:
        """Read the files of keys and accounts now."""
        results = await self._reloads.reload((_API_KEY, _ACCOUNTS))
        self._on_change()
        return PoolReload(
            changed=[one.name for one in results if one.changed],
            failed=[f"{one.name}: {one.error}" for one in results if one.error],
        )

    def _use_key(self, api_key: str) -> bool:
        first = self._accounts.first
        changed = first.use(replace(first.spec, api_key=api_key))
        if self._accounts.renew_keys() or changed:
            self._on_change()
        return changed

    def _use_accounts(self, content: PoolFile) -> bool:
        changed = self._accounts.use(components.account_specs(self._settings, content))
        if changed:
            self._registry.use_accounts(self._accounts.own_ids, self._accounts.former_ids)
        if self._accounts.renew_keys() or changed:
            self._on_change()
        return self._warm.use(content.profiles) or changed
