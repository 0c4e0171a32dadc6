"""What `resume` means: the path of a checkpoint or of a run, whose last it is; or `auto`, the newest whole one of the
same experiment."""

import logging
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from project.command_line.report import report_warnings
from project.spec.fault import Fault
from project.state.checkpoint.error import CheckpointError
from project.state.checkpoint.last import FOLDER, checkpoint_at, named
from project.state.checkpoint.newest import newest_whole, tidy
from project.state.checkpoint.reader import Checkpoint

log = logging.getLogger(__name__)

IDENTITY = ("experiment_name", "seed", "model")
"""What makes a run the same as an earlier one."""
CLOCK = r"\d\d-\d\d-\d\d"


def checkpoint_of(cfg: DictConfig, run_folder: Path) -> str | Fault | None:
    """The path; nothing where `auto` finds none, and the run begins at the beginning; or what is wrong with it.
    Whichever it is, all of its bytes are as they were written."""
    if cfg.resume is None:
        return None
    if cfg.resume == "auto":
        folders = folders_of(cfg, run_folder)
        found = newest_whole(folders, belonging_to(cfg), warn)
        for folder in folders:
            tidy(folder)
        if found is not None:
            return str(found.path.absolute())
        if left := named(folders[0]):
            identity = ", ".join(IDENTITY)
            warn(f"none of the {len(left)} in {folders[0]} is whole and of this run's {identity}: it begins at step 0")
        return None
    try:
        checkpoint = Checkpoint(checkpoint_at(Path(cfg.resume).expanduser()))
        checkpoint.verify()
        return str(checkpoint.path.absolute())
    except CheckpointError as error:
        return Fault("resume", cfg.resume, str(error))


def folders_of(cfg: DictConfig, run_folder: Path) -> list[Path]:
    """This run's own, where it runs in the folder of an earlier one; and, where run folders are named by the clock,
    those of the experiment's other runs beside it."""
    own = OmegaConf.select(cfg, "callbacks.checkpoint.dirpath") or run_folder / FOLDER
    folders = [Path(own)]
    if re.fullmatch(f"{CLOCK}_{re.escape(cfg.experiment_name)}", run_folder.name):
        folders += run_folder.parent.parent.glob(f"*/*_{cfg.experiment_name}/{FOLDER}")
    return list(dict.fromkeys(folder.absolute() for folder in folders))


def belonging_to(cfg: DictConfig) -> Callable[[Mapping[str, Any]], bool]:
    """The same `IDENTITY`: layout, precision and length may be others."""
    mine: Any = OmegaConf.to_container(cfg, resolve=True)

    def belongs(meta: Mapping[str, Any]) -> bool:
        theirs = meta.get("config")
        return isinstance(theirs, Mapping) and all(own(theirs.get(key)) == own(mine[key]) for key in IDENTITY)

    return belongs


def own(value: Any) -> Any:
    """Without Hydra's keys: a section's `_target_` changes when its class moves to another module."""
    if not isinstance(value, Mapping):
        return value
    return {key: entry for key, entry in value.items() if not str(key).startswith("_")}


def warn(text: str) -> None:
    log.warning("resume=auto: %s", text)
    report_warnings([f"resume=auto: {text}"])
