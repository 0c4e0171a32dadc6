"""One run: from a checked configuration to `trainer.fit` and a run folder."""

import logging
import os
import shutil
import sys
import time
import traceback
import warnings
from functools import partial
from pathlib import Path
from typing import Any, cast

from hydra.core.hydra_config import HydraConfig
from hydra.errors import CompactHydraException
from hydra.utils import instantiate
from lightning.pytorch.utilities.exceptions import SIGTERMException
from omegaconf import DictConfig, OmegaConf

from project import command_line
from project.command_line.report import report_warnings
from project.data.corpus import CorpusError
from project.data.datamodule import TokenDataModule
from project.data.tokenizer import TOKENIZER, TOKENIZER_CONFIG, same_tokenizer
from project.engine.allocator import keep_freed_memory
from project.loggers import RunFolderWandb
from project.observe.provenance import command_started
from project.planner.run import plan_run
from project.run_folder import hold, mark_failed, mark_interrupted, read_summary, write_summary
from project.spec.fault import Fault, Told
from project.spec.figures import objective
from project.state.weights.source import open_weights
from project.state.weights.weights import Weights, WeightsError
from project.strategy.hybrid import HybridParallelStrategy
from project.strategy.launcher import RankFailed, one_line
from project.sweep.resume import is_done
from project.training.module import MoEModule
from project.training.optimizer import OptimizerConfig
from project.training.resume import checkpoint_of
from project.training.trainer import build_trainer

log = logging.getLogger(__name__)


class RunFailed(CompactHydraException):
    """Hydra prints the message, which has the rank's own traceback, spares us its own, and exits with 1."""


def train(cfg: DictConfig, run_folder: Path) -> float | tuple[float | None, ...] | None:
    """Trains as configured and returns `cfg.objective`, for a sweep to optimize.

    Raises:
        RunFailed: when a rank did. A sweep goes on with its other jobs.
        InvalidConfig: in a sweep, when the job's config or corpus is not fit for use. Likewise.
        SystemExit: 2 when the corpus is not, 130 on Ctrl-C.

    However it ends, the run folder's summary says so.
    """
    try:
        command_line.check_job(cfg, os.environ)
        if command_line.in_sweep() and cfg.resume == "auto" and is_done(cfg, run_folder):
            print(f"Done already: {run_folder}")
        else:
            fit(cfg, run_folder)
    except command_line.InvalidConfig as error:
        write_summary(run_folder, {"status": "failed", "error": "; ".join(map(str, error.faults))})
        raise
    except RankFailed as error:
        mark_failed(run_folder, str(error))
        log.error("%s\n%s", error, error.details)
        raise failed(f"{error.details or error}\nRank {error.rank} ended the run; its folder: {run_folder}") from None
    except Told as error:  # on a rank that torchrun or SLURM started
        if command_line.leads(os.environ):
            mark_failed(run_folder, one_line(error))
        log.error("%s", error)
        raise failed(str(error)) from None
    except Exception as error:
        if command_line.leads(os.environ):
            mark_failed(run_folder, one_line(error))
        log.exception("the run failed")
        if command_line.in_sweep():
            raise failed(traceback.format_exc()) from None
        raise
    except SIGTERMException:
        if command_line.leads(os.environ):
            mark_interrupted(run_folder)
            saved = (
                "with a checkpoint; resume=auto goes on" if cfg.callbacks.get("checkpoint") else "without a checkpoint"
            )
            print(f"Stopped after the batch, {saved}: {run_folder}", file=sys.stderr)
        raise SystemExit(0) from None
    except (KeyboardInterrupt, SystemExit) as end:  # the latter is Lightning's answer to Ctrl-C, or a refusal
        if isinstance(end, SystemExit) and end.code == 2:
            raise
        if command_line.leads(os.environ):
            mark_interrupted(run_folder)
            print(f"Interrupted; the run's folder: {run_folder}", file=sys.stderr)
        raise SystemExit(130) from None
    finally:
        refused = getattr(sys.exception(), "code", None) == 2  # the folder may be a living run's
        if command_line.leads(os.environ) and not refused:
            leave_page(run_folder)
    summary = read_summary(run_folder) if command_line.leads(os.environ) else None
    return None if summary is None else objective(summary, cfg.objective)


def fit(cfg: DictConfig, run_folder: Path) -> None:
    started = time.time() if command_line.in_sweep() else command_started()
    quiet()
    keep_freed_memory()
    lock = hold(run_folder) if command_line.leads(os.environ) else None
    if isinstance(lock, Fault):
        command_line.refuse([lock], os.environ)
    if command_line.leads(os.environ):
        OmegaConf.save(cfg, run_folder / "config.yaml", resolve=True)
    data = instantiate(cfg.data, _convert_="all")
    try:
        data.prepare()  # before there are sixteen to wait for it
    except CorpusError as error:
        command_line.refuse([error.fault], os.environ)
    if command_line.leads(os.environ) and data.prepared:
        for name in (TOKENIZER, TOKENIZER_CONFIG):
            shutil.copyfile(data.prepared.folder / name, run_folder / name)
    config = cast(dict[str, Any], OmegaConf.to_container(cfg, resolve=True))
    planned = plan_run(config, run_folder) if command_line.leads(os.environ) else None
    trainer = build_trainer(cfg, started, planned)
    strategy = cast(HybridParallelStrategy, trainer.strategy)
    resumed = cast(Any, strategy.found_first(partial(checkpoint_of, cfg, run_folder)))
    if isinstance(resumed, Fault):
        command_line.refuse([resumed], os.environ)
    if cfg.resume:
        log.info("resumes from %s", resumed or "nothing: there is no checkpoint of this experiment yet")
    for logger in trainer.loggers:
        if resumed and isinstance(logger, RunFolderWandb):
            logger.continue_run_of(Path(resumed).parent.parent)
    weights = initial_weights(cfg, data)
    module = MoEModule(instantiate(cfg.model), OptimizerConfig(**cfg.training), cfg.seed, cfg.data.seq_len, weights)
    trainer.fit(module, data, ckpt_path=resumed)


def initial_weights(cfg: DictConfig, data: TokenDataModule) -> Weights | None:
    """Read once by the leading process, to compare checksums; each rank then reads what it needs."""
    if not cfg.init_from:
        return None
    weights = open_weights(cfg.init_from)
    if command_line.leads(os.environ):
        try:
            weights.verify()
        except WeightsError as error:
            command_line.refuse([Fault("init_from", cfg.init_from, reason) for reason in error.reasons], os.environ)
        theirs, ours = weights.tokenizer, data.prepared and data.prepared.tokenizer_file
        if theirs and ours and not same_tokenizer(theirs, ours):
            remedy = f"with data.tokenizer={theirs} they mean what they meant"
            report_warnings([f"init_from={cfg.init_from}: its tokenizer is not this run's; {remedy}"])
    return weights


def failed(details: str) -> RunFailed:
    """Of a sweep's job at once, where it happened: Hydra prints one exception, after the last job."""
    if not command_line.in_sweep():
        return RunFailed(details)
    print(details, file=sys.stderr)
    return RunFailed(f"Job {HydraConfig.get().job.num} failed: see above")


def leave_page(run_folder: Path) -> None:
    """However the run ended, if it began; and a page that cannot be made changes nothing of how."""
    from project.report.run_page import write_run_page  # after the ranks were forked: they need no plotly

    if (run_folder / "summary.json").exists():
        try:
            write_run_page(run_folder)
        except Exception:
            log.exception("No report.html; `python project/report.py %s` tries again", run_folder)


def quiet() -> None:
    """Lightning's remarks go to the run's log instead of the terminal, and what it has to mend in itself nowhere."""
    for name in ("lightning", "lightning.pytorch", "lightning.fabric"):
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True
    warnings.filterwarnings("ignore", message=".*isinstance.treespec, LeafSpec.* is deprecated")
    warnings.filterwarnings("ignore", message="Be aware that when using `ckpt_path`")  # of callbacks left out
    warnings.filterwarnings("ignore", message="The dirpath has changed from")  # which is what resuming elsewhere is
    warnings.filterwarnings("ignore", message="Checkpoint directory .* exists and is not empty")  # a resumed run's is
