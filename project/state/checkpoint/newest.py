"""The checkpoint that a run resumes from."""

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from project.state.checkpoint.form import check_state
from project.state.checkpoint.last import LINK, named, put_link, written
from project.state.checkpoint.manifest import CheckpointError, weights_alone
from project.state.checkpoint.partial import LOCK, remove_leftovers
from project.state.checkpoint.reader import Checkpoint

log = logging.getLogger(__name__)


def newest_whole(
    folders: Iterable[Path],
    belongs: Callable[[Mapping[str, Any]], bool],
    warn: Callable[[str], None] = log.warning,
) -> Checkpoint | None:
    """The checkpoint in `folders` that was written last, among the whole ones with optimizer state whose `meta`
    satisfies `belongs`. Its checksums have been compared; damaged checkpoints are skipped with a warning."""
    paths = sorted((each for folder in folders for each in named(folder)), key=written, reverse=True)
    return next(whole(opened(paths, belongs, warn), warn), None)


def furthest_whole(
    folders: Iterable[Path],
    belongs: Callable[[Mapping[str, Any]], bool],
    warn: Callable[[str], None] = log.warning,
) -> Checkpoint | None:
    """As `newest_whole`, but the one of most steps, and of these the newest: the last start of an experiment may have
    been a trial of two steps."""
    found = opened((each for folder in folders for each in named(folder)), belongs, warn)
    steps = lambda one: (one.meta.get("global_step", 0), written(one.path))  # noqa: E731
    return next(whole(sorted(found, key=steps, reverse=True), warn), None)


def opened(
    paths: Iterable[Path], belongs: Callable[[Mapping[str, Any]], bool], warn: Callable[[str], None]
) -> Iterator[Checkpoint]:
    for path in paths:
        try:
            checkpoint = Checkpoint(path)
            if belongs(checkpoint.meta) and not weights_alone(checkpoint.files):
                yield checkpoint
        except CheckpointError as error:
            warn(f"skipped {error}")


def whole(checkpoints: Iterable[Checkpoint], warn: Callable[[str], None]) -> Iterator[Checkpoint]:
    for checkpoint in checkpoints:
        try:
            checkpoint.verify()
            check_state(checkpoint)
            yield checkpoint
        except CheckpointError as error:
            warn(f"skipped {error}")


def tidy(folder: Path) -> None:
    """Removes the unfinished checkpoints of runs that died, and moves the link to the newest checkpoint if a run died
    before it could. A no-op in a folder that a living run writes to."""
    if folder.is_dir():
        lock = FileLock(folder / LOCK)
        try:
            with lock.acquire(timeout=0):
                remove_leftovers(folder)
                newest, link = max(named(folder), key=written, default=None), folder / LINK
                if newest is not None and link.is_symlink() and link.resolve() != newest.resolve():
                    put_link(newest, link)
        except (Timeout, OSError):
            log.info("%s is another's, or cannot be written", folder)
