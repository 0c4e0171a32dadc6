"""`init_from`: the weights that a run begins with, checked before it starts and then opened.

What opens them imports torch, which a check without `init_from` does not wait for.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from project.command_line.refusal import leads, refuse
from project.command_line.terminal import report_warnings
from project.data.tokenizer import same_tokenizer
from project.spec.fault import Fault
from project.spec.legal_values import said
from project.spec.model import ModelConfig

if TYPE_CHECKING:
    from project.state.weights.weights import Weights


def init_from_faults(init_from: object, model: ModelConfig) -> Iterator[Fault]:
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


def initial_weights(init_from: str | None, tokenizer: Path | None) -> Weights | None:
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
