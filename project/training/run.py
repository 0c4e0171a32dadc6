"""One run: from a checked configuration to `trainer.fit` and a run folder."""

import logging
import sys
import warnings
from pathlib import Path

import lightning.pytorch as L
from hydra.utils import instantiate
from lightning.pytorch.trainer.states import TrainerStatus
from omegaconf import DictConfig, OmegaConf

from project.allocator import keep_freed_memory
from project.strategy.hybrid import HybridParallelStrategy
from project.strategy.launcher import RankFailed
from project.training.module import MoEModule
from project.training.optimizer import OptimizerConfig

log = logging.getLogger(__name__)


def build_trainer(cfg: DictConfig) -> L.Trainer:
    """A plain Lightning trainer around the hybrid strategy."""
    layout = instantiate(cfg.parallel, _convert_="object")
    options = OmegaConf.to_container(cfg.trainer, resolve=True)
    assert isinstance(options, dict)
    options.pop("_target_")
    if options["val_check_interval"] is None:
        options["val_check_interval"] = options["max_steps"]
    # Lightning counts batches there, the configuration optimizer steps.
    options["val_check_interval"] *= options["accumulate_grad_batches"]
    return L.Trainer(
        **options,
        devices=layout.world_size // options["num_nodes"],
        strategy=HybridParallelStrategy(layout),
        callbacks=[instantiate(node) for node in cfg.callbacks.values() if node],
        logger=instantiate(cfg.logger) or False,
        check_val_every_n_epoch=None,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,  # the data module knows its replica
        inference_mode=False,  # DTensor has none
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=False,
    )
