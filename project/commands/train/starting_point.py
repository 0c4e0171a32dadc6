"""The state that a run starts from: `resume` continues a run at a checkpoint, `init_from` begins one with weights.

Both are checked before a run starts, and then opened, which imports torch: the checks do not wait for it.
"""

import glob
import logging
import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from project.command_line.refusal import leads, refuse, report_warnings
from project.data.tokenizer import same_tokenizer
from project.run_folder import read_summary
from project.spec.fault import Fault, said
from project.spec.model import ModelConfig
from project.spec.sections import model_of
from project.spec.untrusted import Unreadable, as_mapping, read_yaml
from project.state.checkpoint.last import FOLDER, checkpoint_at, named
from project.state.checkpoint.manifest import CheckpointError, read_manifest, weights_alone

if TYPE_CHECKING:
    from project.state.weights.weights import Weights

log = logging.getLogger(__name__)

IDENTITY = ("experiment_name", "seed", "model")
"""The keys that are the same in a run and in the earlier run that it continues."""
CLOCK = r"\d\d-\d\d-\d\d"


def resume_faults(resume: object, model: ModelConfig) -> Iterator[Fault]:
    """Faults that show before the checkpoint's tensors are read, those of another model's sizes among them. `resume` is
    null; `auto`, the newest whole checkpoint in the run's own folder, or else the furthest of the same experiment's
    other runs; or the path of a checkpoint or of a run, which stands for its last checkpoint."""
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
        return
    from project.state.weights.source import open_weights
    from project.state.weights.weights import WeightsError

    with suppress(WeightsError):  # without a model's configuration nothing is compared; `checkpoint_of` reads the rest
        yield from open_weights(checkpoint_at(path)).config_faults(model)


def checkpoint_of(cfg: DictConfig, run_folder: Path) -> str | Fault | None:
    """The path of the checkpoint, every byte of which has been compared with its checksum; None where `auto` finds
    none, and the run begins at step 0; or the fault of the checkpoint that was asked for."""
    if cfg.resume is None:
        return None
    from project.state.checkpoint.form import check_state
    from project.state.checkpoint.newest import furthest_whole, newest_whole, tidy
    from project.state.checkpoint.reader import Checkpoint

    if cfg.resume == "auto":
        folders = folders_of(cfg, run_folder)
        belongs = belonging_to(cfg)
        found = newest_whole(folders[:1], belongs, warn) or furthest_whole(folders[1:], belongs, warn)
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
        check_state(checkpoint)
        return str(checkpoint.path.absolute())
    except CheckpointError as error:
        return Fault("resume", cfg.resume, str(error))


def folders_of(cfg: DictConfig, run_folder: Path) -> list[Path]:
    """The folders of checkpoints to look in: this run's own, where it runs in the folder of an earlier one; and, where
    run folders are named by the clock, those of the experiment's other runs beside it."""
    own = OmegaConf.select(cfg, "callbacks.checkpoint.dirpath") or run_folder / FOLDER
    folders = [Path(own)]
    if re.fullmatch(f"{CLOCK}_{re.escape(str(cfg.experiment_name))}", run_folder.name):
        folders += run_folder.parent.parent.glob(f"*/*_{glob.escape(str(cfg.experiment_name))}/{FOLDER}")
    return list(dict.fromkeys(folder.absolute() for folder in folders))


def belonging_to(cfg: DictConfig) -> Callable[[Mapping[str, Any]], bool]:
    """The test of a checkpoint's `meta` for the same `IDENTITY`; layout, precision and length may differ."""
    mine: Any = OmegaConf.to_container(cfg, resolve=True)

    def belongs(meta: Mapping[str, Any]) -> bool:
        theirs = meta.get("config")
        return isinstance(theirs, Mapping) and all(own(theirs.get(key)) == own(mine[key]) for key in IDENTITY)

    return belongs


def goes_no_further(cfg: DictConfig, run_folder: Path) -> bool:
    """True if the folder has this very run (`IDENTITY`), completed, with no fewer steps than are asked for: resuming it
    would train nothing, and write a summary of nothing over its own."""
    saved, asked = run_folder / "config.yaml", OmegaConf.select(cfg, "trainer.max_steps")
    try:
        summary = read_summary(run_folder) or {}
        if summary.get("status") != "completed" or not saved.is_file():
            return False
        same = belonging_to(cfg)({"config": as_mapping(saved, read_yaml(saved))})
    except Unreadable:
        return False
    return same and isinstance(asked, int) and 0 < asked <= (summary.get("steps") or 0)


def own(value: Any) -> Any:
    """The model of a section: Hydra's keys are a matter of where a class lies, and an older version's section lacks
    keys that have come since, whose defaults it computes."""
    return model_of(value) if isinstance(value, Mapping) else value


def warn(text: str) -> None:
    log.warning("resume=auto: %s", text)
    report_warnings([f"resume=auto: {text}"])


def init_from_faults(init_from: object, model: ModelConfig) -> Iterator[Fault]:
    """Faults of the weights alone, and of the model's configuration against that of the weights."""
    if init_from is None:
        return
    if not isinstance(init_from, str) or not init_from:
        yield Fault("init_from", said(init_from), "must be null, or the path of a checkpoint or a Hugging Face folder")
        return
    from project.state.weights.source import open_weights
    from project.state.weights.weights import WeightsError

    try:
        weights = open_weights(init_from)
        weights.check_tensors()
    except WeightsError as error:
        yield from (Fault("init_from", init_from, reason) for reason in error.reasons)
        return
    yield from weights.config_faults(model)


def init_from_warnings(init_from: str | None, model: ModelConfig) -> list[str]:
    """For a configuration without faults."""
    if init_from is None:
        return []
    from project.state.weights.source import open_weights

    return open_weights(init_from).config_warnings(model)


def initial_weights(init_from: str | None, tokenizer: Path | None) -> "Weights | None":
    """The weights, whose checksums the leading process compares; each rank then reads the tensors that it needs.

    `tokenizer` is the run's. Ends the command (`refuse`) where a checksum differs.
    """
    if not init_from:
        return None
    from project.state.weights.source import open_weights
    from project.state.weights.weights import WeightsError

    weights = open_weights(init_from)
    if leads(os.environ):
        try:
            weights.verify()
        except WeightsError as error:
            refuse([Fault("init_from", init_from, reason) for reason in error.reasons], os.environ)
        theirs = weights.tokenizer
        if theirs and tokenizer and not same_tokenizer(theirs, tokenizer):
            remedy = f"with data.tokenizer={theirs} they mean what they meant"
            report_warnings([f"init_from={init_from}: its tokenizer is not this run's; {remedy}"])
    return weights
