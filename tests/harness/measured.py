"""Short runs that return what was measured on a rank: the spans of a step, the bytes kept for backward."""

from types import MethodType
from typing import Any

import lightning.pytorch as L
import torch
from torch import Tensor

from project.callbacks.first_steps import ActivationPeaks
from project.engine.stage import Span
from project.model.router import Router, Routing
from tests.harness.case import Case
from tests.harness.training import CaseModule, run


class Spans(L.Callback):
    """Takes the spans of the last step."""

    def on_train_batch_end(self, trainer: L.Trainer, *args: Any) -> None:
        self.spans = trainer.strategy.step.take_spans()


def spans_of(rank: int, world_size: int, case: Case) -> list[Span]:
    """The actions that this rank executed in the last step, in order, with their times."""
    recorder = Spans()
    run(rank, world_size, case, recorder)
    return recorder.spans


def evenly(router: Router, x_TD: Tensor) -> Routing:
    """Routing in which consecutive tokens go to consecutive experts."""
    routing = Router.forward(router, x_TD)
    choice_TA = torch.arange(len(x_TD)).unsqueeze(1) + torch.arange(router.top_k)
    return routing._replace(experts_TA=choice_TA % len(router.weight))


class BalancedModule(CaseModule):
    """A module whose experts all receive the same number of tokens."""

    def reset_part(self, part: Any) -> None:
        super().reset_part(part)
        for router in (module for module in part.modules() if isinstance(module, Router)):
            router.forward = MethodType(evenly, router)


def peaks_of(rank: int, world_size: int, case: Case) -> list[int]:
    """Bytes kept for backward at most, of each stage, with balanced routing."""
    strategy: Any = run(rank, world_size, case, ActivationPeaks(), module=BalancedModule).strategy
    return strategy.record.summary["activation_bytes_peak_per_stage"]
