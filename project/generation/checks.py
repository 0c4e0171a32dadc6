"""All that is wrong with a command that generates, before any process starts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from project.data.tokenizer import tokenizer_faults
from project.fault import Fault
from project.generation.prompt import Prompt, padded
from project.legal_values import is_number, legal, said
from project.parallel.layout import PRECISIONS, ParallelLayout
from project.parallel.legality import layout_faults
from project.preflight.gpus import count_gpus, gpu_faults
from project.preflight.half_precision import half_precision_warnings
from project.preflight.sections import filled
from project.preflight.settings import ACCELERATORS
from project.preflight.world import world_size_faults
from project.weights.source import open_weights
from project.weights.weights import Weights, WeightsError


def _whole(least: int) -> Callable[[Any], bool]:
    return lambda value: type(value) is int and value >= least


SETTINGS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "prompt": (lambda value: isinstance(value, str), "a text; one that looks like a number needs quotes of its own"),
    "max_new_tokens": (_whole(1), "a whole number of at least 1"),
    "samples": (_whole(1), "a whole number of at least 1"),
    "seed": (_whole(0), "a whole number, 0 or more"),
    "temperature": (lambda value: is_number(value) and value >= 0, "a number, 0 or more"),
    "top_k": (lambda value: value is None or _whole(1)(value), "null or a whole number of at least 1"),
    "trainer.num_nodes": (_whole(1), "a whole number of at least 1"),
}
CHOICES = {"trainer.precision": PRECISIONS, "trainer.accelerator": ACCELERATORS}
# What the layout's rules call by the names that training has for it.
_CALLED = {"data.batch_size": "samples", "data.seq_len": "max_new_tokens"}


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
    found = list(_setting_faults(cfg))
    try:
        weights = open_weights(str(config["checkpoint"]))
        weights.check_tensors()
    except WeightsError as error:
        return [*found, *(Fault("checkpoint", config["checkpoint"], reason) for reason in error.reasons)]
    layout, unknown = filled(ParallelLayout, "parallel", config["parallel"])
    found += unknown
    tokens = list(_prompt_tokens(config, weights, found))
    if not found:
        found += _layout_faults(config, environ, gpus, layout, weights, len(tokens))
    return found


def warnings(cfg: DictConfig, gpus: Callable[[], int] = count_gpus) -> list[str]:
    on_cpu = cfg.trainer.accelerator == "cpu" or (cfg.trainer.accelerator == "auto" and gpus() == 0)
    return half_precision_warnings(str(cfg.trainer.precision)) if on_cpu else []


def tokenizer_of(tokenizer: str | None, weights: Weights) -> Path | None:
    return Path(tokenizer).expanduser() if tokenizer else weights.tokenizer


def _setting_faults(cfg: DictConfig) -> Iterator[Fault]:
    for key, choices in CHOICES.items():
        if (value := OmegaConf.select(cfg, key)) not in choices:
            yield Fault(key, said(value), f"is not known; {legal(value, choices)}")
    for key, (test, wanted) in SETTINGS.items():
        if not test(value := OmegaConf.select(cfg, key)):
            yield Fault(key, said(value), f"must be {wanted}")


def _prompt_tokens(config: Mapping[str, Any], weights: Weights, found: list[Fault]) -> list[int]:
    """None where they cannot be told, and then `found` says why."""
    file = tokenizer_of(config["tokenizer"], weights)
    if file is None:
        found.append(
            Fault("tokenizer", "null", f"{weights.path} has none, so a text has no tokens; give a tokenizer.json")
        )
        return []
    if wrong := tokenizer_faults(str(file), weights.config.vocab_size):
        found += [replace(fault, key="tokenizer") for fault in wrong]
        return []
    return Prompt(file, str(config["prompt"])).tokens


def _layout_faults(
    config: Mapping[str, Any],
    environ: Mapping[str, str],
    gpus: Callable[[], int],
    layout: ParallelLayout,
    weights: Weights,
    prompt_length: int,
) -> Iterator[Fault]:
    model, samples = replace(weights.config, capacity_factor=None), config["samples"]
    tp = layout.tp if type(layout.tp) is int and layout.tp > 0 else 1
    length = padded(prompt_length + config["max_new_tokens"], tp)
    if length > model.max_seq_len:
        most = model.max_seq_len // tp * tp - prompt_length
        said_of = f"the prompt has {prompt_length} tokens, and the model {model.max_seq_len} positions"
        yield Fault("max_new_tokens", config["max_new_tokens"], f"is too many: {said_of}; nearest {most}")
        length = tp
    replicas = layout.dp if type(layout.dp) is int and layout.dp > 0 else 1
    batch = samples * replicas  # each replica has all of them
    for fault in layout_faults(layout, model, batch, length):
        yield replace(fault, key=_CALLED.get(fault.key, fault.key))
    if all(type(degree) is int and degree > 0 for degree in (layout.pp, layout.dp, layout.tp)):
        yield from gpu_faults(config["trainer"], layout, model, (batch, length), environ, gpus)
        yield from world_size_faults(layout, model, (batch, length), environ)
