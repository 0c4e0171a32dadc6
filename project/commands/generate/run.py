"""Generation, from a checked configuration to the text on the terminal."""

import os
import sys
from dataclasses import replace
from typing import Any

import lightning.pytorch as L
from omegaconf import DictConfig

from project.command_line.check import check_job
from project.command_line.refusal import RunFailed
from project.commands.generate.command import GENERATE, prompt_of
from project.commands.quiet import quiet
from project.generation.module import Generator, Sampling, prompts
from project.generation.prompt import Prompt
from project.spec.fault import plain
from project.spec.sections import layout_of
from project.state.weights.source import open_weights
from project.strategy.hybrid import HybridParallelStrategy
from project.strategy.launcher import RankFailed
from project.training.trainer import placed, settle_precision

BETWEEN = "-" * 40


def generate(cfg: DictConfig) -> None:
    """Prints the samples, a line of dashes between them.

    Raises:
        RunFailed: when a rank failed.
    """
    check_job(cfg, GENERATE, os.environ)
    quiet()
    module, prompt = generator_of(cfg)
    try:
        build_trainer(cfg, Printed(prompt)).predict(module, prompts(prompt.tokens, cfg.samples))
    except RankFailed as error:
        raise RunFailed(error.details or str(error)) from None
    except (KeyboardInterrupt, SystemExit):  # the latter is Lightning's answer to Ctrl-C
        raise SystemExit(130) from None


def generator_of(cfg: DictConfig) -> tuple[Generator, Prompt]:
    weights = open_weights(cfg.checkpoint)
    prompt = prompt_of(cfg, weights)
    sampling = Sampling(cfg.temperature, cfg.get("top_k"), cfg.seed)
    return Generator(weights, sampling, cfg.max_new_tokens, prompt.end), prompt


class Printed(L.Callback):
    """Prints on rank 0: Lightning returns no predictions from processes that it has forked."""

    def __init__(self, prompt: Prompt) -> None:
        self.prompt = prompt

    def on_predict_batch_end(self, trainer: L.Trainer, module: L.LightningModule, outputs: Any, *rest: Any) -> None:
        if trainer.is_global_zero:
            shown = plain if sys.stdout.isatty() else str  # a terminal would obey control characters
            print(f"\n{BETWEEN}\n".join(shown(self.prompt.continued(tokens)) for tokens in outputs), flush=True)


def build_trainer(cfg: DictConfig, *callbacks: L.Callback) -> L.Trainer:
    layout = replace(layout_of(cfg.parallel), recompute="none")  # there is no backward
    settle_precision(cfg)
    return L.Trainer(
        **placed(cfg, layout),
        num_nodes=cfg.trainer.num_nodes,
        strategy=HybridParallelStrategy(layout, cfg.trainer.precision),
        callbacks=list(callbacks),
        logger=False,
        use_distributed_sampler=False,
        inference_mode=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=False,
    )
