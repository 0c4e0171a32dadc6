"""The checkpoints in a folder, and the last one of a run."""

import os
from contextlib import suppress
from pathlib import Path

from project.state.checkpoint.manifest import MANIFEST

FOLDER, LINK = "checkpoints", "last.ckpt"
"""A run's folder of checkpoints, and the link in it to the one that was saved last."""


def named(folder: Path) -> list[Path]:
    """Lists finished checkpoints; skips symbolic links and unfinished ones, which are hidden."""
    if not folder.is_dir():
        return []
    return [path for path in folder.iterdir() if path.is_dir() and not path.is_symlink() and path.name[0] != "."]


def written(path: Path) -> int:
    """The time at which a checkpoint was written, in nanoseconds; 0 if its run has removed it meanwhile."""
    for place in (path / MANIFEST, path):
        with suppress(FileNotFoundError):
            return place.stat().st_mtime_ns
    return 0


def checkpoint_at(path: Path) -> Path:
    """The checkpoint that a path means: for a run's folder the one that its link leads to, or else the one written
    last; for any other path, and for a run without a checkpoint, the path itself."""
    folder = path / FOLDER
    if not folder.is_dir():
        return path
    last = (folder / LINK).resolve()
    if last.is_dir() and last.parent == folder.resolve():  # else the link leads to what is no checkpoint of the run
        return last
    return max(named(folder), key=written, default=path)


def put_link(target: Path, link: Path) -> None:
    """Makes `link` lead to `target`, atomically: there is a link at every moment."""
    hidden = link.with_name(f".{link.name}.new")
    hidden.unlink(missing_ok=True)
    hidden.symlink_to(os.path.relpath(target, link.parent))
    os.replace(hidden, link)
