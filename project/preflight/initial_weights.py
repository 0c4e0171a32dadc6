"""`init_from`: weights that are not there, or that are another model's."""

from __future__ import annotations

from collections.abc import Iterator

from project.spec.fault import Fault
from project.spec.legal_values import said
from project.spec.model import ModelConfig


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
    """For a config without faults."""
    if init_from is None:
        return []
    from project.state.weights.source import open_weights

    return open_weights(init_from).config_warnings(model)
