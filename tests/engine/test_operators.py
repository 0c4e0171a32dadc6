"""How many operators the host dispatches for a layer: on a GPU each is a launch, and the host's time for them is the
least that a layer takes. The budgets may only fall."""

from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch.distributed.tensor import DTensor
from torch.utils._python_dispatch import TorchDispatchMode

from project.engine.local_shards import local_shards
from project.engine.mesh import build_mesh
from project.engine.parts import local_tensor, split
from project.engine.precision import ComputePrecision
from project.model.balance import Balancing
from project.spec.layout import ParallelLayout
from project.spec.model import ModelConfig
from project.spec.partition import Part
from project.training.split_transformer import SplitTransformer

CONFIG = ModelConfig(
    d_model=64, num_heads=4, num_kv_heads=4, head_dim=16, d_ff=64, max_seq_len=16, capacity_factor=1.0, capacity_group=4
)
VIEWS = {"alias", "as_strided", "detach", "expand", "permute", "select", "slice", "split", "split_with_sizes"}
VIEWS |= {"squeeze", "t", "transpose", "unbind", "unsqueeze", "view", "_unsafe_view"}


class Operators(TorchDispatchMode):
    """Counts what is dispatched, views apart."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        if DTensor in types:
            return NotImplemented
        namespace, name = func.name().split(".")[0].split("::")
        if namespace != "aten" or name not in VIEWS:
            self.counts[name] += 1
        return func(*args, **(kwargs or {}))


def operators(layers: int, layout: ParallelLayout, precision: str) -> tuple[int, int]:
    """Of a microbatch's forward and backward; it is the second, whose gradients are added to the first's."""
    model = SplitTransformer(replace(CONFIG, num_layers=layers))
    part = split(
        model,
        Part(0, range(layers), False, False),
        model.plan(layout),
        layout,
        build_mesh(layout, "cpu"),
        torch.float32,
    )
    part.to_empty(device="cpu")
    for weight in part.parameters():
        local_tensor(weight.data).normal_(std=0.02)
    model.reset_part(part)
    compute = ComputePrecision(precision)
    x_BSD = torch.randn(2, 16 // layout.tp, CONFIG.d_model, requires_grad=True)
    with local_shards([part], compute.products_dtype):
        for _ in range(2):
            with Operators() as forward, compute.compute_context(torch.device("cpu")):
                out_BSD = part(x_BSD, balancing=Balancing())
            with Operators() as backward:
                out_BSD.sum().backward()
    return forward.counts.total(), backward.counts.total()


def of_one_layer(rank: int, world_size: int, layout: ParallelLayout, precision: str) -> list[int]:
    """Two layers' less one's: what surrounds them is counted in neither."""
    both = zip(operators(2, layout, precision), operators(1, layout, precision), strict=True)
    return [two - one for two, one in both]


BUDGETS = {
    ("tp4 ep4", "bf16-mixed"): (127, 130),
    ("tp4 ep4", "32-true"): (119, 117),
    ("one rank", "bf16-mixed"): (108, 122),
    ("one rank", "32-true"): (100, 109),
}
LAYOUTS = {"tp4 ep4": ParallelLayout(tp=4, ep=4), "one rank": ParallelLayout()}


@pytest.mark.parametrize(("layout", "precision"), BUDGETS)
def test_a_layer_with_experts_dispatches_no_more_operators_than_its_budget(ranks, layout: str, precision: str) -> None:
    split_over = LAYOUTS[layout]
    for forward, backward in ranks.run(split_over.world_size, of_one_layer, split_over, precision):
        assert forward <= BUDGETS[layout, precision][0]
        assert backward <= BUDGETS[layout, precision][1]
