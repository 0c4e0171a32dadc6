"""Where a layer asks for a value, for which the host of a GPU would wait: for the row counts of a dropless dispatch
over several ranks, once a layer and microbatch, and nowhere else. Tensors have no numbers here, so that what asks for
one is an error. `make gpu-check` looks at the rest of a step."""

import traceback
from collections.abc import Callable
from dataclasses import replace
from unittest import mock

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

from project.engine.local_shards import local_shards
from project.engine.mesh import build_mesh
from project.engine.parts import split
from project.engine.precision import ComputePrecision
from project.model.balance import Balancing
from project.spec.layout import ParallelLayout
from project.spec.model import ModelConfig
from project.spec.partition import Part
from project.training.split_transformer import SplitTransformer
from tests.harness.ranks import RankError, RankPools

LAYERS, SEQUENCES, LENGTH = 2, 2, 16
CONFIG = ModelConfig(
    num_layers=LAYERS, d_model=64, num_heads=4, num_kv_heads=4, head_dim=16, d_ff=64, max_seq_len=LENGTH
)
CAPACITY = replace(CONFIG, capacity_factor=1.0, capacity_group=4)
ONE, TP = ParallelLayout(), ParallelLayout(tp=2, ep=2)
DISPATCH = "dispatch.py:forward"


class Waits:
    """Notes where a value is asked for, and answers with as many rows for each rank."""

    def __init__(self, ranks: int, config: ModelConfig) -> None:
        self.places: list[str] = []
        self.rows = SEQUENCES * LENGTH // ranks * config.top_k // ranks

    def tolist_of(self) -> Callable[[FakeTensor], list[list[int]]]:
        def tolist(tensor: FakeTensor) -> list[list[int]]:
            caller = traceback.extract_stack()[-2]
            self.places.append(f"{caller.filename.rsplit('/', 1)[-1]}:{caller.name}")
            return [[self.rows] * tensor.shape[1]] * tensor.shape[0]

        return tolist


def waits_of(
    rank: int, world_size: int, config: ModelConfig, layout: ParallelLayout, precision: str, looks: bool = False
) -> list[str]:
    """The places where forward and backward of two layers ask for a value. Any that is not answered is an error."""
    waits = Waits(layout.tp, config)
    model, mesh = SplitTransformer(config), build_mesh(layout, "cpu")
    compute = ComputePrecision(precision)
    part = split(model, Part(0, range(LAYERS), False, False), model.plan(layout), layout, mesh, compute.weight_dtype)
    device = torch.device("cpu")
    with FakeTensorMode(allow_non_fake_inputs=True), mock.patch.object(FakeTensor, "tolist", waits.tolist_of()):
        part.to_empty(device=device)
        x_BSD = torch.randn(SEQUENCES, LENGTH // layout.tp, config.d_model, dtype=compute.weight_dtype)
        with local_shards([part], compute.products_dtype):
            with compute.compute_context(device):
                out_BSD = part(x_BSD.requires_grad_(), balancing=Balancing())
            out_BSD.sum().backward()
        assert x_BSD.grad is not None
        if looks:
            x_BSD.grad.sum().item()
    return waits.places


@pytest.mark.parametrize("precision", ["bf16-mixed", "bf16-true"])  # grouped_mm without numbers is bf16's
@pytest.mark.parametrize(
    ("layout", "config", "waited"),
    [(ONE, CONFIG, 0), (ONE, CAPACITY, 0), (TP, CAPACITY, 0), (TP, CONFIG, LAYERS)],
    ids=["one rank", "one rank, a capacity", "a capacity", "dropless"],
)
def test_the_host_waits_for_a_dropless_dispatch_once_a_layer_and_for_nothing_else(
    ranks: RankPools, layout: ParallelLayout, config: ModelConfig, waited: int, precision: str
) -> None:
    for places in ranks.run(layout.world_size, waits_of, config, layout, precision):
        assert places == [DISPATCH] * waited


def test_a_value_that_is_asked_for_is_found(ranks: RankPools) -> None:
    with pytest.raises(RankError, match="DataDependentOutputException"):
        ranks.run(1, waits_of, CONFIG, ONE, "bf16-true", True)
