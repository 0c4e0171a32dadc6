"""The checkpoints in a folder, and the last of a run. No torch: a path is looked at before a run starts."""

import os
from contextlib import suppress
from pathlib import Path

from project.state.checkpoint.manifest import MANIFEST

FOLDER, LINK = "checkpoints", "last.ckpt"
"""Of a run, and in it, to the one that was saved last."""


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


def checkpoint_at(path: Path) -> Path:
    """A run's folder stands for the checkpoint that its link leads to, or else for the one written last; any other
    path, and that of a run without one, for itself."""
    folder = path / FOLDER
    if not folder.is_dir():
        return path
    if (folder / LINK).is_dir():
        return (folder / LINK).resolve()
    return max(named(folder), key=written, default=path)


def put_link(target: Path, link: Path) -> None:
    """At once: there is always one link, to the one or to the other."""
    hidden = link.with_name(f".{link.name}.new")
    hidden.unlink(missing_ok=True)
    hidden.symlink_to(os.path.relpath(target, link.parent))
    os.replace(hidden, link)
