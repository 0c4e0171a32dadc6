"""The loss of an optimizer step: one mean over all its targets that count, however they fall into microbatches,
replicas and accumulated batches.

How many count in all is known after the last batch. So a microbatch's mean is weighed by its targets that count, over
all places for targets that the step has; once a step, `MeanLoss.correction` makes places into targets that count. Where
all count it is 1, and no bit changes.
"""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor

from project.engine.split_model import SplitModel
from project.spec.layout import ParallelLayout

HALVES_AGREE_TO = 0.02  # relative: logits may be bf16


class MeanLoss:
    """The mean loss of one rank's steps. `factor`, where it is an argument, makes the means of microbatches add up to
    the mean over microbatches, replicas and accumulated batches, times the fp16 loss scale."""

    def __init__(self, model: SplitModel, layout: ParallelLayout, replicas: DeviceMesh) -> None:
        self.model, self.layout, self.replicas = model, layout, replicas
        self.checked = False
        # Of the present step's batches: places for targets, targets that count, mean losses.
        self.places, self.counts, self.losses = 0, list[Tensor](), list[Tensor]()

    def of_microbatch(self, outputs: Tensor, targets: Tensor, factor: float) -> Tensor:
        """This microbatch's share of the loss. One without any target that counts has loss zero, where the mean of
        nothing is not a number."""
        if not self.checked:
            self.checked = True
            check_mean(self.model, outputs, targets)
        count = self.model.count(targets)
        loss = self.model.loss(outputs, targets)
        loss = loss.full_tensor() if isinstance(loss, DTensor) else loss
        weight = count.double() / targets.numel() * factor
        return (loss.masked_fill(count == 0, 0.0) * weight).to(loss.dtype)

    def penalty_scale(self, targets: Tensor, factor: float) -> Tensor:
        """The factor on a penalty that a model adds in every microbatch of this batch, a mean over them that no target
        weighs: `factor`, and what the correction takes back. Collective over the replicas, if there are several."""
        count = self.model.count(targets).double()
        if self.layout.dp > 1:
            dist.all_reduce(count, group=self.replicas.get_group())
        return count / self.places_of(targets) * factor

    def of_stage(self, losses: list[Tensor], targets: Tensor, factor: float) -> tuple[Tensor, Tensor]:
        """This stage's summands of a batch's mean loss, over all places, and of its targets that count: zeros but on
        the last stage, which has its microbatches' `losses`."""
        zero = torch.zeros((), dtype=torch.float64, device=targets.device)
        if not losses:
            return zero, zero
        mean = torch.stack(losses).detach().double().sum() / (factor * self.layout.microbatches)
        return mean / self.layout.dp, self.model.count(targets).to(zero)

    def over_count(self, targets: Tensor, loss: Tensor, count: Tensor) -> Tensor:
        """A batch's mean loss over what counts, from that over all places; 0 where nothing counts."""
        return loss * (self.places_of(targets) / count.clamp(min=1.0))

    def places_of(self, targets: Tensor) -> int:
        """Returns how many targets a batch has on all replicas, those included that do not count."""
        return self.layout.dp * targets.numel()

    def add(self, targets: Tensor, loss: Tensor, count: Tensor) -> None:
        """Notes a batch of the present step: its mean loss and its targets that count, on all replicas."""
        self.places += self.places_of(targets)
        self.losses.append(loss)
        self.counts.append(count)

    def so_far(self) -> Tensor:
        """The mean loss of the step's batches so far, a float64 scalar; 0 where there are none."""
        if not self.losses:
            return torch.zeros((), dtype=torch.float64)
        counts = torch.stack(self.counts)
        weights = counts / counts.mean().clamp(min=1.0)  # 1 each, to the bit, where all count as many targets
        return (torch.stack(self.losses) * weights).mean()

    def counted(self) -> Tensor:
        """The step's targets that count so far, a scalar."""
        return torch.stack(self.counts).sum() if self.counts else torch.zeros(())

    def correction(self, counted: float) -> float:
        """The factor on gradients for places to become targets that count, `counted` of them in the whole step."""
        return self.places / counted if counted else 1.0

    def next_step(self) -> None:
        self.places, self.counts, self.losses = 0, [], []


def check_mean(model: SplitModel, outputs: Tensor, targets: Tensor) -> None:
    """Checks that the model's loss is a mean over the targets that it counts: that of a microbatch is the mean of its
    halves' by their counts. Where outputs are cut over ranks it would ask them, and is left.

    Raises:
        ValueError: if it is not.
    """
    cut = isinstance(outputs, DTensor) and outputs.device_mesh.size() > 1
    if cut or len(targets) < 2 or len(outputs) != len(targets):
        return
    with torch.no_grad():
        pairs: list[Any] = list(zip(outputs.detach().chunk(2), targets.chunk(2), strict=True))
        first, second = (model.count(half).item() for _, half in pairs)
        if not first or not second:
            return
        whole, *halves = (model.loss(*pair).item() for pair in [(outputs.detach(), targets), *pairs])
    mean = (first * halves[0] + second * halves[1]) / (first + second)
    if abs(whole - mean) > HALVES_AGREE_TO * max(abs(whole), *map(abs, halves)):  # False where one is not finite
        raise ValueError(
            f"the loss of a microbatch is {whole:g}, but the mean over its halves, by their {first} and {second} "
            f"targets that count, is {mean:g}: `loss` has to be a mean over the targets that `count` counts, or what "
            "a run computes would depend on its layout"
        )
