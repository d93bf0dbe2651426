"""Files that a running process reads again: on SIGHUP, and some of them as soon as they change."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeVar

import structlog

_Content = TypeVar("_Content")
_Stamp = tuple[tuple[int, int, int] | None, ...]

_log = structlog.get_logger(__name__)

POLL_S: Final = 2.0
"""Pause between two looks at files that are taken up as soon as they change."""


@dataclass(slots=True, kw_only=True)
class _Source:
    """Files that are read together, and what is done with their content."""

    name: str
    files: Sequence[Path]
    read: Callable[[], Any]
    use: Callable[[Any], bool]
    watched: bool
    stamp: _Stamp = field(default=())
    complaint: str = ""
    """Last reason why the files could not be used; empty while they can."""


class FileReloads:
    """Sources of a process that can change while it runs. A source that cannot be read keeps its old content."""

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
    ) -> None:
        """Register files that were read when the process started.

        Args:
            name: What they hold, for the log.
            files: Their paths.
            read: Reads and checks them, in a thread. Raises `ValueError` when they cannot be used.
            use: Takes the content up, on the event loop; returns whether it was another.
            watched: Whether a change is taken up without a signal. Only for files whose content shows that it is
                whole: one that is read while it is being written must be recognizable.
        """
        source = _Source(name=name, files=tuple(files), read=read, use=use, watched=watched)
        source.stamp = _stamp(source.files)
        self._sources.append(source)

    async def watch(self) -> None:
        """Look at the watched files again and again, until cancelled."""
        while True:
            await asyncio.sleep(POLL_S)
            async with self._lock:
                for source in self._sources:
                    if source.watched:
                        await self._look(source)

    async def _look(self, source: _Source) -> None:
        stamp = await asyncio.to_thread(_stamp, source.files)
        # What could not be used is read again even without another stamp: the clock of a file system is coarse.
        if stamp != source.stamp or source.complaint:
            await self._reload(source, stamp)

    async def reload(self) -> None:
        """Read all files again."""
        async with self._lock:
            for source in self._sources:
                source.complaint = ""
                changed = await self._reload(source, await asyncio.to_thread(_stamp, source.files))
                if changed is False:
                    _log.info("reload.unchanged", what=source.name)

    async def _reload(self, source: _Source, stamp: _Stamp) -> bool | None:
        """Read one source; returns whether it was another, None when it cannot be used."""
        try:
            changed = source.use(await asyncio.to_thread(_read, source))
        except Exception as error:  # noqa: BLE001 - whatever is wrong with a file, the process goes on as it is
            complaint = str(error) if isinstance(error, ValueError) else type(error).__name__
            if complaint != source.complaint:
                _log.error("reload.failed", what=source.name, error=complaint)
            source.stamp, source.complaint = stamp, complaint
            return None
        source.stamp, source.complaint = stamp, ""
        if changed:
            _log.info("reload.done", what=source.name)
        return changed


def _read(source: _Source) -> Any:
    """Read a source of files: a pipe without a writer would keep its thread, and the process from ending."""
    for file in source.files:
        if file.exists() and not file.is_file():
            raise ValueError(f"{file} is no regular file")
    return source.read()


def _stamp(files: Sequence[Path]) -> _Stamp:
    """Return what tells one state of the files from another; links are followed."""
    found: list[tuple[int, int, int] | None] = []
    for file in files:
        try:
            status = file.stat()
        except OSError:
            found.append(None)
        else:
            found.append((status.st_mtime_ns, status.st_size, status.st_ino))
    return tuple(found)
