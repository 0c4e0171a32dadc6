"""All that is wrong with a command that generates, before any process starts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from project.data.tokenizer import tokenizer_faults
from project.generation.prompt import Prompt
from project.preflight.gpus import count_gpus, gpu_faults
from project.preflight.half_precision import half_precision_warnings
from project.preflight.sections import filled
from project.preflight.settings import ACCELERATORS, Settings, not_negative, or_null, table_faults, whole
from project.preflight.world import world_size_faults
from project.spec.fault import Fault
from project.spec.layout import PRECISIONS, ParallelLayout
from project.spec.legality.layouts import layout_faults
from project.state.weights.source import open_weights
from project.state.weights.weights import Weights, WeightsError

SETTINGS: Settings = {
    "prompt": (lambda value: isinstance(value, str), "a text; one that looks like a number needs quotes of its own"),
    "max_new_tokens": (whole(1), "a whole number of at least 1"),
    "samples": (whole(1), "a whole number of at least 1"),
    "seed": (whole(0), "a whole number, 0 or more"),
    "temperature": (not_negative, "a number, 0 or more"),
    "top_k": (or_null(whole(1)), "null or a whole number of at least 1"),
    "trainer.num_nodes": (whole(1), "a whole number of at least 1"),
}
CHOICES = {"trainer.precision": PRECISIONS, "trainer.accelerator": ACCELERATORS}
# What the layout's rules call by the names that training has for it.
_CALLED = {"data.batch_size": "samples"}


def faults(
    cfg: DictConfig,
    environ: Mapping[str, str],
    run_folder: Path | None = None,
    gpus: Callable[[], int] = count_gpus,
) -> list[Fault]:
    if missing := sorted(OmegaConf.missing_keys(cfg)):
        wanted = "must be given: a run's folder, a checkpoint, or a Hugging Face folder"
        return [Fault(key, "???", wanted if key == "checkpoint" else "must be given") for key in missing]
    config: Any = OmegaConf.to_container(cfg, resolve=True)
    layout, unknown = filled(ParallelLayout, "parallel", config["parallel"])
    found = [*table_faults(config, CHOICES, SETTINGS), *unknown]
    try:
        weights = open_weights(str(config["checkpoint"]))
        weights.check_tensors()
    except WeightsError as error:
        return [*found, *(Fault("checkpoint", config["checkpoint"], reason) for reason in error.reasons)]
    found += _tokenizer_faults(config, weights)
    tp, dp = (degree if type(degree) is int and degree > 0 else 1 for degree in (layout.tp, layout.dp))
    length = tp
    if not found:
        length = prompt_of(config, weights).length(config["max_new_tokens"], tp)
        if length > weights.config.max_seq_len:
            found.append(_too_long(config, weights, tp))
            length = tp
    samples = config["samples"] if whole(1)(config["samples"]) else 1
    return [*found, *_layout_faults(config, environ, gpus, layout, weights, (samples * dp, length))]


def warnings(cfg: DictConfig, gpus: Callable[[], int] = count_gpus) -> list[str]:
    on_cpu = cfg.trainer.accelerator == "cpu" or (cfg.trainer.accelerator == "auto" and gpus() == 0)
    return half_precision_warnings(str(cfg.trainer.precision)) if on_cpu else []


def prompt_of(config: Mapping[str, Any], weights: Weights) -> Prompt:
    """Of a config whose tokenizer has no fault."""
    file = _tokenizer(config, weights)
    assert file is not None
    return Prompt(file, config["prompt"])


def _tokenizer(config: Mapping[str, Any], weights: Weights) -> Path | None:
    return Path(config["tokenizer"]).expanduser() if config["tokenizer"] else weights.tokenizer


def _tokenizer_faults(config: Mapping[str, Any], weights: Weights) -> Iterator[Fault]:
    file = _tokenizer(config, weights)
    if file is None:
        reason = f"{weights.path} has none, so that a text has no tokens; give a tokenizer.json"
        yield Fault("tokenizer", "null", reason)
    else:
        yield from (replace(f, key="tokenizer") for f in tokenizer_faults(str(file), weights.config.vocab_size))


def _too_long(config: Mapping[str, Any], weights: Weights, tp: int) -> Fault:
    prompt, positions = len(prompt_of(config, weights).tokens), weights.config.max_seq_len
    most = positions // tp * tp - prompt
    instead = f"nearest {most}" if most > 0 else "shorten the prompt"
    reason = f"is too many: the prompt has {prompt} tokens, and the model {positions} positions; {instead}"
    return Fault("max_new_tokens", config["max_new_tokens"], reason)


def _layout_faults(
    config: Mapping[str, Any],
    environ: Mapping[str, str],
    gpus: Callable[[], int],
    layout: ParallelLayout,
    weights: Weights,
    batch: tuple[int, int],
) -> Iterator[Fault]:
    """`batch` is all that the replicas have together, each the same, and its length."""
    model = replace(weights.config, capacity_factor=None)
    for fault in layout_faults(layout, model, *batch):
        yield replace(fault, key=_CALLED.get(fault.key, fault.key))
    if all(type(degree) is int and degree > 0 for degree in (layout.pp, layout.dp, layout.tp)):
        yield from gpu_faults(config["trainer"], layout, model, batch, environ, gpus)
        yield from world_size_faults(layout, model, batch, environ)
