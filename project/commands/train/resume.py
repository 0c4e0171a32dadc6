"""`resume`: the path of a checkpoint or of a run, which stands for its last one; or `auto`, the newest whole checkpoint
of the same experiment. Checked before a run starts, and then opened.

Opening a checkpoint imports torch, which the check does not wait for.
"""

import logging
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from project.command_line.terminal import report_warnings
from project.spec.fault import Fault
from project.spec.sections import without_hydra_keys
from project.state.checkpoint.error import CheckpointError
from project.state.checkpoint.last import FOLDER, checkpoint_at, named
from project.state.checkpoint.manifest import read_manifest, weights_alone

log = logging.getLogger(__name__)

IDENTITY = ("experiment_name", "seed", "model")
"""The keys that are the same in a run and in the earlier run that it continues."""
CLOCK = r"\d\d-\d\d-\d\d"


def resume_faults(resume: object) -> Iterator[Fault]:
    """Faults that show before the checkpoint is read. `resume` is null, `auto`, or the path of a checkpoint or of a
    run, which stands for its last checkpoint."""
    if resume is None or resume == "auto":
        return
    if not isinstance(resume, str) or not resume:
        yield Fault("resume", resume, "must be null, auto, or the path of a checkpoint or a run")
        return
    path = Path(resume).expanduser()
    if not path.exists():
        yield Fault("resume", resume, f"does not exist; give auto or a path, relative ones from {Path.cwd()}")
        return
    try:
        files = read_manifest(checkpoint_at(path))
    except CheckpointError as error:
        yield Fault("resume", resume, str(error))
        return
    if weights_alone(files):
        yield Fault("resume", resume, f"has weights alone, no run to go on with; init_from={resume} begins with them")


def checkpoint_of(cfg: DictConfig, run_folder: Path) -> str | Fault | None:
    """The path of the checkpoint, every byte of which has been compared with its checksum; None where `auto` finds
    none, and the run begins at step 0; or the fault of the checkpoint that was asked for."""
    if cfg.resume is None:
        return None
    from project.state.checkpoint.newest import newest_whole, tidy
    from project.state.checkpoint.reader import Checkpoint

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
    """The folders of checkpoints to look in: this run's own, where it runs in the folder of an earlier one; and, where
    run folders are named by the clock, those of the experiment's other runs beside it."""
    own = OmegaConf.select(cfg, "callbacks.checkpoint.dirpath") or run_folder / FOLDER
    folders = [Path(own)]
    if re.fullmatch(f"{CLOCK}_{re.escape(cfg.experiment_name)}", run_folder.name):
        folders += run_folder.parent.parent.glob(f"*/*_{cfg.experiment_name}/{FOLDER}")
    return list(dict.fromkeys(folder.absolute() for folder in folders))


def belonging_to(cfg: DictConfig) -> Callable[[Mapping[str, Any]], bool]:
    """The test of a checkpoint's `meta` for the same `IDENTITY`; layout, precision and length may differ."""
    mine: Any = OmegaConf.to_container(cfg, resolve=True)

    def belongs(meta: Mapping[str, Any]) -> bool:
        theirs = meta.get("config")
        return isinstance(theirs, Mapping) and all(own(theirs.get(key)) == own(mine[key]) for key in IDENTITY)

    return belongs


def own(value: Any) -> Any:
    """A section without Hydra's keys: its `_target_` is a matter of where a class lies."""
    return without_hydra_keys(value) if isinstance(value, Mapping) else value


def warn(text: str) -> None:
    log.warning("resume=auto: %s", text)
    report_warnings([f"resume=auto: {text}"])
