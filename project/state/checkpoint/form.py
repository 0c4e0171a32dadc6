"""The form of a checkpoint's JSON: what a resumed run takes from `meta.json` and from a rank's file. The files are not
trusted, so that each is held to its form whole before any of it is used. Further keys are let through: callbacks and
schedulers of the user have their own."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from pydantic import AfterValidator, Field, ValidationError, model_validator
from torch import Tensor

from project.spec.run_files import Count, Form, first_fault
from project.state.checkpoint.manifest import ANOTHER, META, CheckpointError, rank_file
from project.state.checkpoint.reader import Checkpoint


def _number(value: Any) -> Any:
    """A number, or a tensor that holds one."""
    if isinstance(value, bool) or not isinstance(value, int | float | Tensor):
        raise ValueError("must be a number")
    if isinstance(value, Tensor) and value.numel() != 1:
        raise ValueError("must be one number")
    return value


Number = Annotated[Any, AfterValidator(_number)]


class Counts(Form):
    ready: Count
    completed: Count
    started: Count = 0
    processed: Count = 0


class Progress(Form):
    total: Counts
    current: Counts


class BatchProgress(Progress):
    is_last_batch: bool


class OptimizerSteps(Form):
    step: Progress
    zero_grad: Progress


class OptimizerProgress(Form):
    optimizer: OptimizerSteps


class BatchesThatStepped(Form):
    stepped: Count = Field(0, alias="_batches_that_stepped")


class LoaderState(Form):
    combined_loader: list[dict[str, Any]] | None = None


class FitLoop(Form):
    """The position of a fit, in Lightning's words."""

    state: LoaderState = Field(alias="state_dict")
    epochs: Progress = Field(alias="epoch_progress")
    epoch_state: BatchesThatStepped = Field(alias="epoch_loop.state_dict")
    batches: BatchProgress = Field(alias="epoch_loop.batch_progress")
    schedulers: Progress = Field(alias="epoch_loop.scheduler_progress")
    optimizers: OptimizerProgress = Field(alias="epoch_loop.automatic_optimization.optim_progress")
    validation: BatchProgress = Field(alias="epoch_loop.val_loop.batch_progress")


class Loops(Form):
    fit_loop: FitLoop


class Best(Form):
    """The state of the callback that saves checkpoints."""

    best_model_path: str
    best_model_score: Number | None
    best_k_models: dict[str, Number]
    kth_best_model_path: str
    kth_value: Number | None
    last_model_path: str = ""
    dirpath: str | None
    beside_the_best: str = ""

    @model_validator(mode="after")
    def worst_is_among_the_best(self) -> "Best":
        if self.kth_best_model_path and self.kth_best_model_path not in self.best_k_models:
            raise ValueError("kth_best_model_path is none of best_k_models")
        return self


class Counted(Form):
    """The state of the callback that writes the summary."""

    tokens: Count
    train_loss_first: float | None
    assignments: list[list[float]] | None

    @model_validator(mode="after")
    def rows_are_alike(self) -> "Counted":
        if self.assignments is not None and len({len(row) for row in self.assignments}) != 1:
            raise ValueError("assignments must be rows of one length")
        return self


_CALLBACKS: dict[str, type[Form]] = {"Checkpoint{": Best, "RunSummary": Counted}  # by how their names begin


def _hold(form: type[Form], value: Any, place: str) -> None:
    try:
        form.model_validate(value)
    except ValidationError as error:
        raise ValueError(f"{place} {first_fault(error)}") from None


def _callbacks(states: dict[str, Any]) -> dict[str, Any]:
    for name, state in states.items():
        for beginning, form in _CALLBACKS.items():
            if name.startswith(beginning):
                _hold(form, state, beginning.rstrip("{"))
    return states


class Position(Form):
    """A run's position in its data."""

    position: Count


class Run(Form):
    """The form of `meta.json`."""

    global_step: Count
    epoch: Count
    loops: Loops
    callbacks: Annotated[dict[str, Any], AfterValidator(_callbacks)]
    layout: dict[str, str | int | tuple[Any, ...] | list[Any] | None]
    world_size: int = Field(gt=0, le=2**20)
    version: str = Field(alias="pytorch-lightning_version", pattern=r"^\d{1,4}\.\d{1,4}(\.\d{1,4})?([-+.\w]{0,40})$")
    data: Position | None = Field(None, alias="TokenDataModule")


class Options(Form):
    lr: Number
    initial_lr: Number | None = None
    weight_decay: Number | None = None
    eps: Number | tuple[float | None, float] | list[float | None] | None = None
    momentum: Number | None = None
    betas: tuple[Number, ...] | list[Number] | None = None


class Group(Form):
    """A parameter group of an optimizer."""

    weights: list[str]
    options: Options
    state: dict[str, dict[str, Any]]


class Scheduler(Form):
    """A learning rate's schedule."""

    last_epoch: int | None = None
    step_count: int | None = Field(None, alias="_step_count")
    base_lrs: list[Number] | None = None
    last_lr: list[Number] | None = Field(None, alias="_last_lr")


def _bytes(value: Any) -> Any:
    if not isinstance(value, Tensor) or value.dtype != torch.uint8 or value.ndim != 1:
        raise ValueError("must be a generator's bytes")
    return value


def _numpy(value: Any) -> Any:
    kinds = (str, np.ndarray, int, int, float)
    if not isinstance(value, tuple) or [type(part) for part in value] != list(kinds) or value[1].shape != (624,):
        raise ValueError("must be a generator's name, keys and position")
    return value


def _python(value: Any) -> Any:
    if not isinstance(value, tuple) or len(value) != 3 or not isinstance(value[1], tuple) or len(value[1]) != 625:
        raise ValueError("must be a generator's version, keys and last number")
    if not all(type(number) is int and 0 <= number < 2**32 for number in value[1]):
        raise ValueError("must have keys of 32 bits")
    return value


def _on_gpu(value: Any) -> Any:
    """This rank's, or in a list those of all GPUs, as older checkpoints have them."""
    for one in value if isinstance(value, list) else [value]:
        _bytes(one)
    return value


class Random(Form):
    """The states of a rank's generators."""

    torch: Annotated[Any, AfterValidator(_bytes)]
    on_gpu: Annotated[Any, AfterValidator(_on_gpu)] = Field([], alias="torch.cuda")
    numpy: Annotated[Any, AfterValidator(_numpy)] = None
    python: Annotated[Any, AfterValidator(_python)]


class Rank(Form):
    """The form of `rank-00000.json`."""

    optimizers: list[list[Group]]
    lr_schedulers: list[Scheduler]
    random: Random


def has_form(value: Mapping[str, Any], form: type[Form], path: Path) -> dict[str, Any]:
    """The value as it is, after it was held to its form.

    Raises:
        CheckpointError: naming the first key that is missing or has a value of another kind.
    """
    try:
        form.model_validate(value)
    except ValidationError as error:
        raise CheckpointError(path, first_fault(error), ANOTHER) from None
    return dict(value)


def meta_of(checkpoint: Checkpoint) -> dict[str, Any]:
    """Raises `CheckpointError` unless `meta.json` has its form."""
    return has_form(checkpoint.meta, Run, checkpoint.path / META)


def rank_of(checkpoint: Checkpoint, rank: int) -> dict[str, Any]:
    """Raises `CheckpointError` unless the rank's file has its form."""
    return has_form(checkpoint.of_rank(rank), Rank, checkpoint.path / rank_file(rank))


def check_state(checkpoint: Checkpoint) -> None:
    """Raises `CheckpointError` unless a run could go on from it: all that is JSON has its form."""
    for rank in range(meta_of(checkpoint)["world_size"]):
        rank_of(checkpoint, rank)
