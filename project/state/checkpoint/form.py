"""The schema of a checkpoint's JSON, which is checked before it is used, because the file is not trusted. Lightning and
the optimizers check their own values."""

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from project.state.checkpoint.error import ANOTHER, CheckpointError


class Form(BaseModel):
    """A schema that allows further keys."""

    model_config = ConfigDict(strict=True, extra="allow")


class Run(Form):
    """The schema of `meta.json`."""

    global_step: int
    epoch: int
    loops: dict[str, Any]
    callbacks: dict[str, Any]
    layout: dict[str, Any]
    world_size: int = Field(gt=0)
    version: str = Field(alias="pytorch-lightning_version", pattern=r"^\d+\.\d+")


class Group(Form):
    """The schema of a parameter group of an optimizer."""

    weights: list[str]
    options: dict[str, Any]
    state: dict[str, dict[str, Any]]


class Rank(Form):
    """The schema of `rank-00000.json`."""

    optimizers: list[list[Group]]
    lr_schedulers: list[dict[str, Any]]
    random: dict[str, Any]


def has_form(value: dict[str, Any], form: type[Form], path: Path) -> dict[str, Any]:
    """Checks `value` and returns it unchanged.

    Raises:
        CheckpointError: naming the first key that is missing or has a value of another type.
    """
    try:
        form.model_validate(value)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise CheckpointError(path, f"has {'.'.join(map(str, first['loc']))}: {first['msg']}", ANOTHER) from None
    return value
