"""Finds the first weight or gradient of the model that is inf or nan."""

from collections.abc import Iterable
from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from project.engine.materialize import local_tensor
from project.spec.fault import Told


class Place(NamedTuple):
    """A tensor of the model. `what` is "weight" or "gradient"; `position` counts a rank's weights in the model's
    order."""

    stage: int
    position: int
    name: str
    what: str
    rank: int

    def __str__(self) -> str:
        return f"the {self.what} of {self.name} (stage {self.stage}, rank {self.rank})"


class NotFinite(Told):
    """A step's loss or gradient norm is inf or nan; raised with the same message on all ranks."""


@torch.no_grad()
def not_finite_here(named: Iterable[tuple[int, str, Tensor]], rank: int) -> Place | None:
    """Returns the first of this rank's weights, by stage and in the model's order, that is not finite; else the first
    such gradient; None if all are finite."""
    places = []
    for position, (stage, name, weight) in enumerate(named):
        for what, tensor in (("weight", weight), ("gradient", weight.grad)):
            if tensor is not None and not local_tensor(tensor).isfinite().all():
                places.append(Place(stage, position, name, what, rank))
    return min(places, key=order, default=None)


def order(place: Place) -> tuple:
    return place.what != "weight", place.stage, place.position, place.rank


def first_not_finite(named: Iterable[tuple[int, str, Tensor]]) -> Place | None:
    """Returns the first such place over all ranks; collective."""
    places: list[Place | None] = [None] * dist.get_world_size()
    dist.all_gather_object(places, not_finite_here(named, dist.get_rank()))
    return min((place for place in places if place is not None), key=order, default=None)
