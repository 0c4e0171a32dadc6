"""A run's state by global names: weights, persistent buffers, and the optimizer's state of each weight.

The grouping of an optimizer's weights depends on what is on a rank, and so do a scheduler's lists, which have an entry
for each group. So groups are saved weight by weight, and put together again for the groups that exist on loading.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer

from project.engine.parts import named_weights
from project.state.checkpoint.reader import Checkpoint

Tensors = dict[str, Tensor]

IMPLEMENTATION = ("foreach", "fused", "capturable", "differentiable")
"""Options that say how, not what: those of the present optimizer stay."""
PER_GROUP = ("base_lrs", "_last_lr", "lr_lambdas", "min_lrs", "max_lrs", "base_momentums", "max_momentums")
"""A scheduler's lists with an entry for each group."""


def weights(parts: Sequence[nn.Module]) -> Tensors:
    """Parameters and persistent buffers of this rank's parts."""
    return dict(named_weights(parts)) | dict(persistent_buffers(parts))


def persistent_buffers(parts: Iterable[nn.Module]) -> Iterable[tuple[str, Tensor]]:
    for part in parts:
        saved = part.state_dict(keep_vars=True)
        for prefix, module in part.named_modules():
            for name, buffer in module.named_buffers(prefix, recurse=False):
                if name in saved:
                    yield name, buffer


class NamedOptimizer:
    """Optimizer number `index` of a run, whose weights are those of `parts`."""

    def __init__(self, index: int, optimizer: Optimizer, parts: Iterable[nn.Module]) -> None:
        self.index, self.optimizer = index, optimizer
        self.names: dict[Tensor, str] = {parameter: name for name, parameter in named_weights(parts)}

    def key(self, name: str, entry: str) -> str:
        return f"optimizer.{self.index}.{entry}.{name}"

    def state(self) -> Iterable[tuple[str, Tensor, str, Any]]:
        for parameter, entries in self.optimizer.state.items():
            for entry, value in entries.items():
                yield self.names[parameter], parameter, entry, value

    def tensors(self) -> Tensors:
        """Raises `ValueError` for a tensor that does not say which part of a whole it is."""
        found = {}
        for name, _, entry, value in self.state():
            if isinstance(value, Tensor):
                if value.ndim and not isinstance(value, DTensor):
                    kind = type(self.optimizer).__name__
                    raise ValueError(f"{kind} keeps {entry} of {name} as a plain tensor, which cannot change layout")
                found[self.key(name, entry)] = value
        return found

    def groups(self) -> list[dict[str, Any]]:
        """Returns each group's weights and options, and each weight's entries that are no tensor."""
        others: dict[str, dict[str, Any]] = {}
        for name, _, entry, value in self.state():
            if not isinstance(value, Tensor):
                others.setdefault(name, {})[entry] = value
        groups = []
        for group in self.optimizer.param_groups:
            names = [self.names[parameter] for parameter in group["params"]]
            options = {key: value for key, value in group.items() if key != "params"}
            state = {name: others[name] for name in names if name in others}
            groups.append({"weights": names, "options": options, "state": state})
        return groups

    def to_be_filled(self, checkpoint: Checkpoint) -> Tensors:
        """Gives the optimizer the tensors that the checkpoint has for its weights, without their numbers."""
        self.optimizer.state.clear()
        prefix = f"optimizer.{self.index}."
        entries = {name[len(prefix) :].split(".", 1)[0] for name in checkpoint.optimizer if name.startswith(prefix)}
        found = {}
        for parameter, name in self.names.items():
            for entry in sorted(entries):
                key = self.key(name, entry)
                if key in checkpoint.optimizer:
                    found[key] = self.optimizer.state[parameter][entry] = self.empty(parameter, name, key, checkpoint)
        return found

    def empty(self, parameter: Tensor, name: str, key: str, checkpoint: Checkpoint) -> Tensor:
        """Returns an empty tensor for the entry: in the weight's dtype if it was saved so, for that may be another
        now."""
        stored, weight = checkpoint.optimizer[key], checkpoint.stored(name)
        dtype = parameter.dtype if stored.dtype == weight.dtype and stored.shape else stored.dtype
        if stored.shape == parameter.shape:
            return torch.empty_like(parameter, dtype=dtype, requires_grad=False)
        return torch.empty(stored.shape, dtype=dtype, device=parameter.device)

    def restore_groups(self, saved: "SavedGroups") -> None:
        for group in self.optimizer.param_groups:
            names = [self.names[parameter] for parameter in group["params"]]
            if names:
                options = saved.group_of(self.index, names[0])["options"]
                group.update({key: value for key, value in options.items() if key not in IMPLEMENTATION})
            for name, parameter in zip(names, group["params"], strict=True):
                self.optimizer.state[parameter].update(saved.group_of(self.index, name)["state"].get(name, {}))


class SavedGroups:
    """The saved groups by their weights. `ranks` are the states of all ranks that may be needed."""

    def __init__(self, ranks: Iterable[Mapping[str, Any]]) -> None:
        self.places: dict[tuple[int, str], tuple[Mapping[str, Any], int]] = {}
        for rank in ranks:
            for index, groups in enumerate(rank["optimizers"]):
                for number, group in enumerate(groups):
                    for name in group["weights"]:
                        self.places.setdefault((index, name), (rank, number))

    def group_of(self, index: int, name: str) -> Mapping[str, Any]:
        rank, number = self.places[index, name]
        return rank["optimizers"][index][number]

    def scheduler(self, number: int, own: Mapping[str, Any], optimizer: NamedOptimizer) -> dict[str, Any]:
        """Returns scheduler `number`'s state for the groups of the present optimizer; `own` is any rank's."""
        first = [optimizer.names[group["params"][0]] for group in optimizer.optimizer.param_groups if group["params"]]
        places = [self.places[optimizer.index, name] for name in first]
        return regrouped(own, [(rank["lr_schedulers"][number], group) for rank, group in places])


def regrouped(own: Mapping[str, Any], sources: Sequence[tuple[Any, int]]) -> dict[str, Any]:
    """`own` with each list of `PER_GROUP` made of the sources' entries: a state like `own` and the group's number in
    it. Schedulers that hold others have them under `_schedulers`."""
    state = dict(own)
    for key, value in own.items():
        if key in PER_GROUP and isinstance(value, list):
            state[key] = [source[key][group] for source, group in sources]
        elif key == "_schedulers":
            inner: Callable[[int], list] = lambda at: [(s["_schedulers"][at], g) for s, g in sources]  # noqa: E731
            state[key] = [regrouped(one, inner(at)) for at, one in enumerate(value)]
    return state
