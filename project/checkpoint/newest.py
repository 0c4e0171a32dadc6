"""Which checkpoint to go on from."""

import logging
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from project.checkpoint.error import CheckpointError
from project.checkpoint.manifest import MANIFEST, weights_alone
from project.checkpoint.partial import LOCK, remove_leftovers
from project.checkpoint.reader import Checkpoint

log = logging.getLogger(__name__)


def newest_whole(folders: Iterable[Path], belongs: Callable[[Mapping[str, Any]], bool]) -> Checkpoint | None:
    """The one written last among the whole ones in these folders whose `meta` belongs, but for weights alone. Every
    byte of it has been compared with its checksum; those that fail are skipped with a warning."""
    for path in sorted((each for folder in folders for each in named(folder)), key=written, reverse=True):
        try:
            checkpoint = Checkpoint(path)
            if belongs(checkpoint.meta) and not weights_alone(checkpoint.files):
                checkpoint.verify()
                return checkpoint
        except CheckpointError as error:
            log.warning("Skipped: %s", error)
    return None


def named(folder: Path) -> list[Path]:
    """Links are to others of them, and hidden folders are in the making."""
    if not folder.is_dir():
        return []
    return [path for path in folder.iterdir() if path.is_dir() and not path.is_symlink() and path.name[0] != "."]


def written(path: Path) -> int:
    """The earliest of one that its run has removed meanwhile."""
    for place in (path / MANIFEST, path):
        with suppress(FileNotFoundError):
            return place.stat().st_mtime_ns
    return 0


def tidy(folder: Path) -> None:
    """Removes what dead runs have left half-written there; leaves a folder that a living run writes to alone."""
    if folder.is_dir():
        lock = FileLock(folder / LOCK)
        try:
            with lock.acquire(timeout=0):
                remove_leftovers(folder)
        except (Timeout, OSError):
            log.info("%s is another's, or cannot be written", folder)
