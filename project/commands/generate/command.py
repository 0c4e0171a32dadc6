"""`project/generate.py` as a record: the checks of its configuration, and the words of its help."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel

from project.command_line.command import Command, Config
from project.data.tokenizer import tokenizer_faults
from project.generation.prompt import Prompt
from project.preflight.machine import Surroundings, with_precision
from project.preflight.ranks import rank_faults
from project.preflight.settings import FromZero, NotNegative, Trainer
from project.preflight.speed import machine_warnings
from project.spec.fault import Fault
from project.spec.legality.layouts import layout_faults
from project.spec.record import Count, Must, record_faults, rejected
from project.spec.sections import layout_of, unknown_keys
from project.state.weights.source import open_weights
from project.state.weights.weights import Weights, WeightsError

_NEEDED = (
    *("checkpoint", "prompt", "max_new_tokens", "samples", "seed", "temperature", "parallel"),
    *("trainer.accelerator", "trainer.num_nodes", "trainer.precision"),
)


class Generation(BaseModel):
    """The keys of no section."""

    prompt: Annotated[str, Must("a text; one that looks like a number needs quotes of its own")]
    max_new_tokens: Count
    samples: Count
    seed: FromZero
    temperature: NotNegative
    top_k: Annotated[Count | None, Must("null or a whole number of at least 1")]


# This command's names of the keys that the layout's rules know by training's names.
_CALLED = {"data.batch_size": "samples"}


def faults(config: Config, around: Surroundings) -> list[Fault]:
    layout = layout_of(config["parallel"])
    found = [
        *record_faults(Trainer, "trainer", config["trainer"]),
        *record_faults(Generation, "", config),
        *unknown_keys("parallel", config["parallel"]),
    ]
    try:
        weights = open_weights(str(config["checkpoint"]))
        weights.check_tensors()
        weights.verify()
        found += _tokenizer_faults(config, weights)
    except WeightsError as error:
        return [*found, *(Fault("checkpoint", config["checkpoint"], reason) for reason in error.reasons)]
    tp, dp = (degree if type(degree) is int and degree > 0 else 1 for degree in (layout.tp, layout.dp))
    length = tp
    if not found:
        length = prompt_of(config, weights).length(config["max_new_tokens"], tp)
        if length > weights.config.max_seq_len:
            found.append(_too_long(config, weights, tp))
            length = tp
    samples = config["samples"] if "samples" not in rejected(Generation, config) else 1
    # All samples of all replicas, which are the same in each.
    batch = (samples * dp, length)
    model = replace(weights.config, capacity_factor=None)
    found += [replace(f, key=_CALLED.get(f.key, f.key)) for f in layout_faults(layout, model, *batch)]
    return [*found, *rank_faults(config["trainer"], layout, model, batch, around)]


def warnings(config: Config, around: Surroundings) -> list[str]:
    return machine_warnings(with_precision(config, around)["trainer"], layout_of(config["parallel"]), around)


def prompt_of(config: Mapping[str, Any], weights: Weights) -> Prompt:
    """The prompt of a configuration whose tokenizer has no fault."""
    file = _tokenizer(config, weights)
    assert file is not None
    return Prompt(file, config["prompt"])


def _tokenizer(config: Mapping[str, Any], weights: Weights) -> Path | None:
    return Path(config["tokenizer"]).expanduser() if config.get("tokenizer") else weights.tokenizer


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


GENERATE = Command(
    name="generate",
    faults=faults,
    warnings=warnings,
    purpose="Continues a text with a trained model.",
    example='checkpoint=outputs/train/... prompt="def "',
    groups=("parallel",),
    needed=_NEEDED,
    missing={"checkpoint": "a run's folder, a checkpoint, or a Hugging Face folder"},
    paths=("checkpoint", "tokenizer"),
    texts=("prompt",),
)
