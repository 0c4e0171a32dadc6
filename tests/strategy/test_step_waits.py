"""How often a rank asks a tensor of its device for a value during an optimizer step, as a GPU's host would wait for it.
The numbers may only fall. All tensors are on processors here: one is taken for the host's where it was copied there
(`cpu`), was made without a device, or was computed of such alone. `make gpu-check` has devices."""

import re
import traceback
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning.pytorch as L
import pytest
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from project.callbacks.expert_metrics import ExpertMetrics
from project.callbacks.step_metrics import StepMetrics
from project.callbacks.summary import RunSummary
from project.loggers import csv_only
from project.spec.layout import ParallelLayout
from tests.harness import training
from tests.harness.case import SMALL, Case
from tests.harness.ranks import RankPools

ASKING = ("item", "tolist", "cpu", "numpy", "__float__", "__bool__", "__int__", "__index__")
METHODS = {getattr(torch.Tensor, name) for name in ASKING}


class Asked(TorchFunctionMode):
    """Counts the questions."""

    def __init__(self) -> None:
        super().__init__()
        self.counts = Counter[str]()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        flat = tree_leaves((args, kwargs))
        given = [one for one in flat if isinstance(one, torch.Tensor)]
        of_host = all(getattr(one, "of_host", False) for one in given)
        if func in METHODS and not of_host:
            self.counts[asker()] += 1
        result = func(*args, **(kwargs or {}))
        if func is torch.Tensor.cpu or (of_host and not any(isinstance(one, torch.device) for one in flat)):
            for one in tree_leaves(result):
                if isinstance(one, torch.Tensor):
                    one.of_host = True  # type: ignore[attr-defined]
        return result


def asker() -> str:
    """The innermost function of the project's or Lightning's that asks, or has somebody ask."""
    asking = [frame for frame in traceback.extract_stack() if re.search("/(project|lightning)/", frame.filename)]
    return f"{Path(asking[-1].filename).name}:{asking[-1].name}"


class BetweenBatches(L.Callback):
    """Stands last: between its calls lies everything that a batch is, the callbacks' work too."""

    def __init__(self, asked: Asked) -> None:
        self.asked = asked
        self.batches: list[Counter[str]] = []

    def on_train_batch_end(self, *args: Any) -> None:
        self.batches.append(self.asked.counts.copy())
        self.asked.counts.clear()


class Looks(L.Callback):
    def on_before_optimizer_step(self, trainer: L.Trainer, module: Any, *args: Any) -> None:
        module.parts[0].layers["0"].attention.wq.weight.to_local().sum().item()


def questions(rank: int, world_size: int, case: Case, folder: str, *others: L.Callback) -> Counter[str]:
    """Those of the last step, by who asks: the first two gather and check more."""
    with Asked() as asked:
        between = BetweenBatches(asked)
        callbacks = [StepMetrics(), ExpertMetrics(), RunSummary(folder), *others, between]
        training.run(rank, world_size, case, *callbacks, logger=csv_only(folder))
    return sum(between.batches[-case.accumulate :], Counter())


LAYOUT = ParallelLayout(pp=2, tp=2, ep=2, microbatches=4)
MODELS = {"dropless": SMALL, "a capacity": replace(SMALL, capacity_factor=1.0, capacity_group=4)}
DISPATCH = "dispatch.py:forward"


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_step_s_host_waits_for_its_sums_and_for_the_other_ranks_times_alone(
    ranks: RankPools, model: str, accumulate: int, tmp_path: Path
) -> None:
    case = Case(LAYOUT, MODELS[model], steps=3, accumulate=accumulate, clip=1.0)
    rows_of_experts = SMALL.num_layers // LAYOUT.pp * LAYOUT.microbatches * accumulate
    for asked in ranks.run(4, questions, case, str(tmp_path)):
        assert asked.pop(DISPATCH, 0) == (rows_of_experts if model == "dropless" else 0)
        assert asked == {"step.py:sum_over_ranks": accumulate, "observed.py:over_ranks": 1}


def test_a_callback_that_looks_at_a_weight_is_counted(ranks: RankPools, tmp_path: Path) -> None:
    (asked,) = ranks.run(1, questions, Case(ParallelLayout(), steps=3), str(tmp_path), Looks())
    assert asked["call.py:_call_callback_hooks"] == 1
