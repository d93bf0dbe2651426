"""Files that a running process reloads: on SIGHUP, and some of them when they change."""

import asyncio
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

import structlog

_Content = TypeVar("_Content")
_Stamp = tuple[tuple[int, int, int] | None, ...]

_log = structlog.get_logger(__name__)

POLL_S: Final = 2.0
"""Interval at which watched files are checked."""


@dataclass(slots=True, kw_only=True)
class _Source:
    """Files that are read together, and the function that uses their content."""

    name: str
    files: Sequence[Path]
    read: Callable[[], Any]
    use: Callable[[Any], bool]
    watched: bool
    settle_s: float
    stamp: _Stamp
    files_of: Callable[[Any], Sequence[Path]] | None = None
    error: str = ""
    """Cause for which the files could last not be used; empty while they are usable."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reloaded:
    """Result of reading a source again."""

    name: str
    changed: bool
    error: str = ""
    """Cause for which its files cannot be used; empty while they are usable."""


class FileReloads:
    """Reloadable sources of a process. An unreadable source keeps its previous content in use."""

    def __init__(self) -> None:
        self._sources: list[_Source] = []
        self._lock = asyncio.Lock()

    def add(
        self,
        name: str,
        files: Sequence[Path],
        read: Callable[[], _Content],
        use: Callable[[_Content], bool],
        *,
        watched: bool = False,
        settle_s: float = 0.0,
        files_of: Callable[[_Content], Sequence[Path]] | None = None,
    ) -> None:
        """Register files that were read at the start of the process.

        Args:
            name: Name of the content, for the log.
            files: Paths of the files.
            read: Reads and checks the files, in a thread. Raises `ValueError` if they are unusable.
            use: Uses the content, on the event loop; returns False if the content is unchanged.
            watched: Reload changes without a signal. Only for files whose content proves that it is complete,
                because a file may be read while it is being written, or with `settle_s`.
            settle_s: Time for which files must be unchanged before they are read; else the next check reads them.
            files_of: Returns the files that new content names, which are watched from then on.
        """
        stamp = _stamp(files)
        self._sources.append(
            _Source(
                name=name,
                files=tuple(files),
                read=read,
                use=use,
                watched=watched,
                settle_s=settle_s,
                stamp=stamp,
                files_of=files_of,
            )
        )

    async def watch(self) -> None:
        """Reload watched files when they change, until cancelled."""
        while True:
            await asyncio.sleep(POLL_S)
            async with self._lock:
                for source in self._sources:
                    if source.watched:
                        await self._reload_if_changed(source)

    async def _reload_if_changed(self, source: _Source) -> None:
        stamp = await asyncio.to_thread(_stamp, source.files)
        # Unusable files are read again even with the same stamp, because time stamps are coarse.
        if stamp != source.stamp or source.error:
            await self._reload(source, stamp)

    async def reload(self, names: Collection[str] | None = None) -> Sequence[Reloaded]:
        """Reload all files, or those of some sources; return what became of each source."""
        results: list[Reloaded] = []
        async with self._lock:
            for source in self._sources:
                if names is not None and source.name not in names:
                    continue
                source.error = ""
                changed = await self._reload(source, await asyncio.to_thread(_stamp, source.files))
                if changed is False:
                    _log.info("reload.unchanged", what=source.name)
                error = source.error or ("the file is being written" if changed is None else "")
                results.append(Reloaded(name=source.name, changed=bool(changed), error=error))
        return results

    async def _reload(self, source: _Source, stamp: _Stamp) -> bool | None:
        """Reload a source; return True if its content changed, None if it is unusable."""
        try:
            if source.settle_s > 0:
                await asyncio.sleep(source.settle_s)
            content = await asyncio.to_thread(_read, source)
            if source.settle_s > 0 and await asyncio.to_thread(_stamp, source.files) != stamp:
                # The stamp of the previous content stays, so the next check reads the files again.
                return None
            changed = source.use(content)
            if source.files_of is not None and (files := tuple(source.files_of(content))) != source.files:
                # A change of these files since they were read is found by the next check at the latest.
                source.files = files
                stamp = await asyncio.to_thread(_stamp, files)
        except Exception as error:  # noqa: BLE001 - a faulty file must not stop the process
            cause = str(error) if isinstance(error, ValueError) else type(error).__name__
            if cause != source.error:
                _log.error("reload.failed", what=source.name, error=cause)
            source.stamp, source.error = stamp, cause
            return None
        is_repaired = bool(source.error)
        source.stamp, source.error = stamp, ""
        if changed:
            _log.info("reload.done", what=source.name)
        elif is_repaired:
            # The last line about these files would otherwise be the failure.
            _log.info("reload.unchanged", what=source.name)
        return changed


def _read(source: _Source) -> Any:
    """Read a source, refusing pipes: a pipe without a writer would block the thread and the process's exit."""
    for file in source.files:
        if file.exists() and not file.is_file():
            raise ValueError(f"{file} is not a regular file")
    return source.read()


def _stamp(files: Sequence[Path]) -> _Stamp:
    """Return modification times, sizes and inodes of files, following links."""
    found: list[tuple[int, int, int] | None] = []
    for file in files:
        try:
            status = file.stat()
        except OSError:
            found.append(None)
        else:
            found.append((status.st_mtime_ns, status.st_size, status.st_ino))
    return tuple(found)
