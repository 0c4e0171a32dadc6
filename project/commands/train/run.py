"""A training run: from a checked configuration to `trainer.fit` and a run folder."""

import logging
import os
import re
import shutil
import sys
import time
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, cast

import lightning.pytorch as L
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from lightning.pytorch.utilities.exceptions import SIGTERMException
from omegaconf import DictConfig, OmegaConf

from project.command_line.check import check_job
from project.command_line.refusal import InvalidConfig, failed, in_sweep, leads, refuse, shows_progress
from project.commands.quiet import quiet
from project.commands.train.command import TRAIN
from project.commands.train.starting_point import checkpoint_of, goes_no_further, initial_weights
from project.data.corpus import CorpusError
from project.data.tokenizer import TOKENIZER, TOKENIZER_CONFIG
from project.engine.host import keep_freed_memory
from project.loggers import RunFolderWandb
from project.observe.provenance import command_started
from project.planner.config import write_plan
from project.run_folder import (
    hold,
    mark_failed,
    mark_interrupted,
    read_summary,
    write_atomically,
    write_summary,
)
from project.spec.disk import NotWritten, writing
from project.spec.fault import Fault, Told, said
from project.spec.figures import objective
from project.spec.sections import model_of, without_hydra_keys
from project.state.checkpoint.last import FOLDER, named, written
from project.strategy.hybrid import HybridParallelStrategy
from project.strategy.launcher import RankFailed, one_line
from project.strategy.ranks import flight_record_in
from project.strategy.unsupported import Unsupported, check_trainer
from project.sweep.resume import is_done
from project.training.module import MoEModule
from project.training.optimizer import OptimizerConfig
from project.training.trainer import build_trainer, settle_precision, settle_recomputation

log = logging.getLogger(__name__)


def train(cfg: DictConfig, run_folder: Path) -> float | tuple[float | None, ...] | None:
    """Trains as configured and returns `cfg.objective`, for a sweep to optimize.

    Raises:
        RunFailed: when a rank failed. A sweep goes on with its other jobs.
        InvalidConfig: in a sweep, when the job's configuration or corpus is faulty. A sweep goes on.
        SystemExit: 2 when the corpus is faulty, 130 on Ctrl-C.

    The run folder's summary says how the run ended.
    """
    try:
        check_job(cfg, TRAIN, os.environ)
        settle_precision(cfg)  # before a finished run's configuration is compared with it
        settle_recomputation(cfg)
        if cfg.resume == "auto" and (is_done(cfg, run_folder) or goes_no_further(cfg, run_folder)):
            if leads(os.environ):
                print(f"Done already: {run_folder}")
        else:
            fit(cfg, run_folder)
    except InvalidConfig as error:
        write_summary(run_folder, {"status": "failed", "error": "; ".join(map(str, error.faults))})
        raise
    except RankFailed as error:
        mark(mark_failed, run_folder, str(error))
        log.error("%s\n%s", error, error.details)
        raise failed(f"{error.details or error}\nRank {error.rank} ended the run; its folder: {run_folder}") from None
    except Told as error:  # on a rank that torchrun or SLURM started
        if leads(os.environ):
            mark(mark_failed, run_folder, one_line(error))
        log.error("%s", error)
        raise failed(str(error)) from None
    except Exception as error:
        if leads(os.environ):
            mark(mark_failed, run_folder, one_line(error))
        log.exception("the run failed")
        if in_sweep():
            raise failed(traceback.format_exc()) from None
        raise
    except SIGTERMException:
        if leads(os.environ):
            mark(mark_interrupted, run_folder)
            saved = (
                "with a checkpoint; resume=auto goes on" if cfg.callbacks.get("checkpoint") else "without a checkpoint"
            )
            print(f"Stopped after the batch, {saved}: {run_folder}", file=sys.stderr)
        raise SystemExit(0) from None
    except (KeyboardInterrupt, SystemExit) as end:  # the latter is Lightning's answer to Ctrl-C, or a refusal
        if isinstance(end, SystemExit) and end.code == 2:
            raise
        if leads(os.environ):
            mark(mark_interrupted, run_folder)
            print(f"\nInterrupted; {last_saved(run_folder)}: {run_folder}", file=sys.stderr)
        raise SystemExit(130) from None
    finally:
        refused = getattr(sys.exception(), "code", None) == 2  # the folder may be a living run's
        if leads(os.environ) and not refused:
            leave_page(run_folder)
    summary = read_summary(run_folder) if leads(os.environ) else None
    return None if summary is None else objective(summary, cfg.objective)


def fit(cfg: DictConfig, run_folder: Path) -> None:
    started = time.time() if in_sweep() else command_started()
    quiet()
    keep_freed_memory()
    lock = hold(run_folder) if leads(os.environ) else None
    if isinstance(lock, Fault):
        refuse([lock], os.environ)
    if leads(os.environ):
        write_atomically(run_folder / "config.yaml", OmegaConf.to_yaml(cfg, resolve=True))
    config = cast(dict[str, Any], OmegaConf.to_container(cfg, resolve=True))
    planned = write_plan(config, run_folder) if leads(os.environ) else None
    trainer = trainer_of(cfg, started, planned)  # before the data, which may take hours
    data = instantiate(cfg.data, _convert_="all")
    try:
        data.prepare()  # before there are sixteen ranks that wait for it
    except CorpusError as error:
        refuse([error.fault], os.environ)
    if leads(os.environ) and data.prepared:
        for name in (TOKENIZER, TOKENIZER_CONFIG):
            with writing(run_folder / name):
                shutil.copyfile(data.prepared.folder / name, run_folder / name)
    resumed = resumed_from(cfg, run_folder, trainer)
    tokenizer = data.prepared and data.prepared.tokenizer_file
    weights = initial_weights(cfg.init_from, tokenizer)
    optimizer = OptimizerConfig(**without_hydra_keys(cfg.training))
    module = MoEModule(model_of(cfg.model), optimizer, cfg.seed, cfg.data.seq_len, weights)
    strategy = cast(HybridParallelStrategy, trainer.strategy)
    if shows_progress(cfg, os.environ) and strategy.new_launcher() is not None:
        print(f"Starts the ranks, {strategy.layout.world_size} in all.", flush=True)
    with flight_record_in(run_folder, os.environ):
        trainer.fit(module, data, ckpt_path=resumed)


def resumed_from(cfg: DictConfig, run_folder: Path, trainer: L.Trainer) -> str | None:
    """The path of the checkpoint that all ranks resume from, which is said, and whose W&B run goes on. Ends the command
    (`refuse`) where the one that was asked for is damaged."""
    strategy = cast(HybridParallelStrategy, trainer.strategy)
    found = cast(Any, strategy.found_first(partial(checkpoint_of, cfg, run_folder)))
    if isinstance(found, Fault):
        refuse([found], os.environ)
    if cfg.resume:
        begun = f"Resumes from {found}" if found else "Begins at step 0: this experiment has no checkpoint yet."
        log.info(begun)
        if shows_progress(cfg, os.environ):
            print(begun, flush=True)
    for logger in trainer.loggers:
        if found and isinstance(logger, RunFolderWandb):
            logger.continue_run_of(Path(found).parent.parent)
    return found


def trainer_of(cfg: DictConfig, started: float, planned: dict[str, Any] | None) -> L.Trainer:
    """The Trainer of the configuration. Ends the command (`refuse`) where an object of others cannot be built from its
    keys, or has no effect under the strategy: the check before has not built any."""
    try:
        trainer = build_trainer(cfg, started, planned)
        check_trainer(trainer)
        return trainer
    except InstantiationException as error:
        place = re.search(r"^full_key: (\S+)", str(error), re.MULTILINE)
        reason = one_line(error.__cause__ or error)
        fault = Fault(place[1] if place else "trainer", "_target_", f"cannot be built: {reason}")
    except Unsupported as error:
        fault = Fault("callbacks", said(list(cfg.callbacks)), str(error))
    refuse([fault], os.environ)


def last_saved(run_folder: Path) -> str:
    """Which checkpoint an interrupted run has, in words."""
    saved = max(named(run_folder / FOLDER), key=written, default=None)
    return f"its last checkpoint is {saved.name}; resume=auto goes on" if saved else "no checkpoint was saved"


def mark(how: Callable[..., None], run_folder: Path, *words: str) -> None:
    """Marks how a run ended in its summary, or says that it could not be written."""
    try:
        how(run_folder, *words)
    except NotWritten as error:
        print(error, file=sys.stderr)


def leave_page(run_folder: Path) -> None:
    """Writes `report.html` if the run began, however it ended. A failure to write it does not change the run's end."""
    from project.report.run_page import write_run_page  # after the ranks were forked: they need no plotly

    if (run_folder / "summary.json").exists():
        try:
            write_run_page(run_folder)
        except NotWritten as error:
            print(f"No report.html: {error}", file=sys.stderr)
        except Exception:
            log.exception("No report.html; `python project/report.py %s` tries again", run_folder)
