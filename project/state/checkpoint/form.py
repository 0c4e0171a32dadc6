"""What a run's JSON has to hold, before anything is made of it: its file may be a stranger's. Values that are
Lightning's, or an optimizer's own, are theirs to judge."""

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from project.state.checkpoint.error import ANOTHER, CheckpointError


class Form(BaseModel):
    model_config = ConfigDict(strict=True, extra="allow")


class Run(Form):
    """Of `meta.json`."""

    global_step: int
    epoch: int
    loops: dict[str, Any]
    callbacks: dict[str, Any]
    layout: dict[str, Any]
    world_size: int = Field(gt=0)
    version: str = Field(alias="pytorch-lightning_version", pattern=r"^\d+\.\d+")


class Group(Form):
    weights: list[str]
    options: dict[str, Any]
    state: dict[str, dict[str, Any]]


class Rank(Form):
    """Of `rank-00000.json`."""

    optimizers: list[list[Group]]
    lr_schedulers: list[dict[str, Any]]
    random: dict[str, Any]


def has_form(value: dict[str, Any], form: type[Form], path: Path) -> dict[str, Any]:
    """The value, as it is.

    Raises:
        CheckpointError: naming the first key that is not there, or is something else.
    """
    try:
        form.model_validate(value)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise CheckpointError(path, f"has {'.'.join(map(str, first['loc']))}: {first['msg']}", ANOTHER) from None
    return value
