"""One run: from a checked configuration to `trainer.fit` and a run folder."""

import logging
import os
import sys
import warnings
from pathlib import Path
from typing import Any, cast

import lightning.pytorch as L
from hydra.errors import CompactHydraException
from hydra.utils import instantiate
from lightning.pytorch.callbacks import ModelCheckpoint, ProgressBar
from omegaconf import DictConfig, OmegaConf

from project import command_line
from project.allocator import keep_freed_memory
from project.data.corpus import CorpusError
from project.preflight.gpus import count_gpus
from project.run_folder import mark_failed, mark_interrupted
from project.strategy.hybrid import HybridParallelStrategy
from project.strategy.launcher import RankFailed
from project.training.module import MoEModule
from project.training.optimizer import OptimizerConfig
from project.weights.source import open_weights

log = logging.getLogger(__name__)


class RunFailed(CompactHydraException):
    """Hydra prints the message, which has the rank's own traceback, spares us its own, and exits with 1."""


def train(cfg: DictConfig, run_folder: Path) -> float | None:
    """Trains as configured and returns the validation loss, for a sweep to optimize.

    Raises:
        RunFailed: when a rank did; the summary says so too. A sweep goes on with its other jobs.
        SystemExit: 2 when the corpus is not fit for use, 130 on Ctrl-C.
    """
    command_line.check_job(cfg, os.environ)
    quiet()
    keep_freed_memory()
    if os.environ.get("LOCAL_RANK", "0") == "0":
        OmegaConf.save(cfg, run_folder / "config.yaml", resolve=True)
    try:
        data = instantiate(cfg.data, _convert_="all")
        data.prepare()  # before there are sixteen to wait for it
        trainer = build_trainer(cfg)
        weights = open_weights(cfg.init_from) if cfg.init_from else None
        module = MoEModule(instantiate(cfg.model), OptimizerConfig(**cfg.training), cfg.seed, cfg.data.seq_len, weights)
        trainer.fit(module, data)
    except CorpusError as error:
        command_line.refuse([error.fault], os.environ)
    except RankFailed as error:
        mark_failed(run_folder, str(error))
        log.error("%s\n%s", error, error.details)
        raise RunFailed(
            f"{error.details or error}\nRank {error.rank} ended the run; its folder: {run_folder}"
        ) from None
    except (KeyboardInterrupt, SystemExit):  # the latter is Lightning's answer to Ctrl-C
        mark_interrupted(run_folder)
        print(f"Interrupted; the run's folder: {run_folder}", file=sys.stderr)
        raise SystemExit(130) from None
    val_loss = trainer.callback_metrics.get("val/loss")
    return None if val_loss is None else val_loss.item()


def quiet() -> None:
    """Lightning's remarks go to the run's log instead of the terminal, and what it has to mend in itself nowhere."""
    for name in ("lightning", "lightning.pytorch", "lightning.fabric"):
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True
    warnings.filterwarnings("ignore", message=".*isinstance.treespec, LeafSpec.* is deprecated")


def build_trainer(cfg: DictConfig) -> L.Trainer:
    """A plain Lightning trainer around the hybrid strategy."""
    layout = instantiate(cfg.parallel, _convert_="object")
    config = OmegaConf.to_container(cfg, resolve=True)
    accelerator = cfg.trainer.accelerator
    callbacks = [instantiate(node) for node in cfg.callbacks.values() if node]
    steps_between = cfg.trainer.val_check_interval or cfg.trainer.max_steps
    return instantiate(
        {key: value for key, value in cfg.trainer.items() if key not in ("precision", "accelerator")},
        # Lightning's auto would take a Mac's GPU, which has neither gloo nor NCCL.
        accelerator=accelerator if accelerator != "auto" else ("cuda" if count_gpus() else "cpu"),
        devices=layout.world_size // cfg.trainer.num_nodes,
        strategy=HybridParallelStrategy(
            layout,
            cfg.trainer.precision,
            asynchronous_checkpoints=cfg.checkpoint.asynchronous,
            run_config=cast(dict[str, Any], config),
        ),
        callbacks=callbacks,
        logger=instantiate(cfg.logger),
        # Lightning counts batches here, the configuration optimizer steps.
        val_check_interval=steps_between * cfg.trainer.accumulate_grad_batches,
        check_val_every_n_epoch=None,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,  # the data module knows its replica
        inference_mode=False,  # DTensor has none
        enable_checkpointing=any(isinstance(callback, ModelCheckpoint) for callback in callbacks),
        enable_model_summary=False,
        enable_progress_bar=any(isinstance(callback, ProgressBar) for callback in callbacks),
        _convert_="all",
    )
