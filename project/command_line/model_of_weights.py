"""`model=auto` on the command line: the model of the weights that `init_from` names. What is typed of it wins."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict

from project.command_line.refusal import refuse
from project.command_line.typed import typed, value_of
from project.spec.fault import Fault
from project.spec.model import ModelConfig

AUTO = "auto"
_BASE = "moe_8x4"  # any choice: each of its keys is replaced


def with_model(argv: Sequence[str], environ: Mapping[str, str] = os.environ) -> list[str]:
    """Puts the sizes of the weights in the place of `model=auto`. Ends the program with status 2 where there are no
    weights to take them from, or none that this project can train."""
    if typed(argv, "model") != AUTO:
        return list(argv)
    path = typed(argv, "init_from")
    if not isinstance(path, str) or not path:
        what = "takes the model of weights; give init_from=PATH of a checkpoint or a Hugging Face folder with it"
        refuse([Fault("model", AUTO, what)], environ)
    from project.state.weights.source import open_weights
    from project.state.weights.weights import WeightsError

    try:
        config = open_weights(path).config
    except WeightsError as error:
        refuse([Fault("init_from", path, reason) for reason in error.reasons], environ)
    rest = [one for one in argv if value_of(one, "model") != AUTO]
    return [f"model={_BASE}", *_sizes(config), *rest]


def _sizes(config: ModelConfig) -> list[str]:
    return [f"model.{key}={json.dumps(value)}" for key, value in asdict(config).items()]
