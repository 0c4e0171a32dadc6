"""The Lightning trainer of a configuration."""

from datetime import timedelta
from typing import Any, cast

import lightning.pytorch as L
from hydra.utils import instantiate
from lightning.pytorch.callbacks import ModelCheckpoint, ProgressBar
from omegaconf import DictConfig, OmegaConf

from project.engine.host import count_gpus
from project.planner.config import Config, step_of
from project.spec.layout import ParallelLayout
from project.spec.precision import settled
from project.spec.sections import layout_of
from project.strategy.hybrid import HybridParallelStrategy


def placed(cfg: DictConfig, layout: ParallelLayout) -> dict[str, Any]:
    """The Trainer's `accelerator` and `devices`. Lightning's auto would take a Mac's GPU, which has neither gloo nor
    NCCL."""
    accelerator = cfg.trainer.accelerator
    if accelerator == "auto":
        accelerator = "cuda" if count_gpus() else "cpu"
    return {"accelerator": accelerator, "devices": layout.world_size // cfg.trainer.num_nodes}


def settle_precision(cfg: DictConfig) -> None:
    """Puts the precision that `auto` stands for where the ranks run into the configuration."""
    if OmegaConf.select(cfg, "trainer.precision") == "auto":
        on_gpus = placed(cfg, layout_of(cfg.parallel))["accelerator"] in ("cuda", "gpu")
        cfg.trainer.precision = settled("auto", on_gpus)


def settle_recomputation(cfg: DictConfig) -> None:
    """Puts the recomputation that `auto` stands for, by the plan, into the configuration."""
    if OmegaConf.select(cfg, "parallel.recompute") == "auto":
        cfg.parallel.recompute = step_of(cast(Config, OmegaConf.to_container(cfg, resolve=True))).layout.recompute


def build_trainer(cfg: DictConfig, started: float, planned: dict[str, Any] | None) -> L.Trainer:
    """Returns a plain Lightning trainer around the hybrid strategy. `started` is when the run began, as `time.time()`;
    `planned` is what its summary says was planned. The callback at `callbacks.summary` is given both."""
    settle_precision(cfg)
    settle_recomputation(cfg)
    layout = layout_of(cfg.parallel)
    config = OmegaConf.to_container(cfg, resolve=True)
    known = {"summary": {"_convert_": "all", "started": started, "planned": planned}}
    callbacks = [instantiate(node, **known.get(name, {})) for name, node in cfg.callbacks.items() if node]
    steps_between = cfg.trainer.get("val_check_interval") or cfg.trainer.max_steps
    return instantiate(
        {key: value for key, value in cfg.trainer.items() if key not in ("precision", "accelerator")},
        **placed(cfg, layout),
        strategy=HybridParallelStrategy(
            layout,
            cfg.trainer.precision,
            asynchronous_checkpoints=cfg.checkpoint.asynchronous,
            run_config=cast(dict[str, Any], config),
            timeout=timedelta(seconds=cfg.watchdog.timeout_s),
            not_finite=cfg.watchdog.not_finite,
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
