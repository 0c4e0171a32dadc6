"""Experts on other ranks, whole or in slices, compute what experts on one rank compute."""

import pytest
import torch
import torch.distributed as dist
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from project.engine.dispatch import AllToAllDispatch
from project.model.dispatch import Capacity, Dispatch, Dropless, LocalDispatch
from project.model.experts import Experts
from project.spec.model import ModelConfig

RANKS, TOKENS, TOP_K = 4, 12, 3
CONFIG = ModelConfig(d_model=8, d_ff=16, num_experts=8, top_k=TOP_K)
DISPATCHES = {
    "dropless": Dropless(CONFIG.num_experts),
    "capacity": Capacity(CONFIG.num_experts, 1.25, group=4),
    "one slot": Capacity(CONFIG.num_experts, 0.1, group=6),
}
FORWARD_EXCHANGES = {"dropless": 3, "capacity": 2, "one slot": 2}  # rows there and back, and counts where unknown
WEIGHTS = {"w1": 1, "w3": 1, "w2": 2}  # and the dim that slices cut


class ExchangeCounter(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.calls += func is torch.ops._c10d_functional.all_to_all_single.default
        return func(*args, **(kwargs or {}))


def whole_experts() -> Experts:
    torch.manual_seed(RANKS)
    experts = Experts(CONFIG).double()
    for weight in experts.parameters():
        torch.nn.init.normal_(weight, std=0.5)
    return experts


def held(weight: Tensor, rank: int, ep: int, etp: int, dim: int) -> Tensor:
    return weight.chunk(ep)[rank // etp].chunk(etp, dim)[rank % etp]


def tokens(rank: int) -> tuple[Tensor, Tensor, Tensor]:
    """A rank's rows, experts and weights. No token chooses expert 3, many choose expert 5."""
    torch.manual_seed(rank)
    preference_TE = torch.rand(TOKENS, CONFIG.num_experts)
    preference_TE[:, 3], preference_TE[::2, 5] = -1.0, 2.0
    x_TD = torch.randn(TOKENS, CONFIG.d_model, dtype=torch.float64, requires_grad=True)
    weights_TA = torch.rand(TOKENS, TOP_K, dtype=torch.float64, requires_grad=True)
    return x_TD, preference_TE.topk(TOP_K).indices, weights_TA


def outcome(dispatch: Dispatch, experts: Experts, rank: int) -> tuple[list[Tensor], int]:
    """Output, gradients of rows and weights, dropped fractions; and the exchanges of the forward. Gradients of the
    experts are added to what they have."""
    x_TD, experts_TA, weights_TA = tokens(rank)
    with ExchangeCounter() as exchanges:
        rows_ND, counts_E, order = dispatch(x_TD, experts_TA)
        out_TD = dispatch.combine(experts(rows_ND, counts_E), weights_TA, order)
    out_TD.square().sum().backward()
    dropped_T = dispatch.dropped(experts_TA, order)
    return [out_TD.detach(), x_TD.grad, weights_TA.grad, dropped_T], exchanges.calls


def on_a_rank(rank: int, world_size: int, local: LocalDispatch, ep: int, etp: int) -> tuple[float, float, int]:
    """The largest distances from one rank with all experts, of what is of the tokens here and of the gradients of the
    experts here; and the exchanges of a forward."""
    whole, here = whole_experts(), whole_experts()
    for name, dim in WEIGHTS.items():
        setattr(here, name, torch.nn.Parameter(held(getattr(whole, name).data, rank, ep, etp, dim).contiguous()))
    wanted = [outcome(local, whole, source)[0] for source in range(world_size)]
    assert dist.group.WORLD is not None
    actual, exchanges = outcome(AllToAllDispatch(local, dist.group.WORLD, ep, etp), here, rank)
    slices = [held(getattr(whole, name).grad, rank, ep, etp, dim) for name, dim in WEIGHTS.items()]
    gradients = [getattr(here, name).grad for name in WEIGHTS]
    return distance(actual, wanted[rank]), distance(gradients, slices), exchanges


def distance(actual: list[Tensor], wanted: list[Tensor]) -> float:
    """The largest value, or NaN if there is one."""
    return torch.stack([(a - w).abs().max().double() for a, w in zip(actual, wanted, strict=True)]).max().item()


@pytest.mark.parametrize(("ep", "etp"), [(4, 1), (2, 2), (1, 4)])
@pytest.mark.parametrize("name", DISPATCHES)
def test_expert_parallel_dispatch_computes_what_one_rank_with_all_experts_does(
    ranks, name: str, ep: int, etp: int
) -> None:
    for of_tokens, of_experts, exchanges in ranks.run(RANKS, on_a_rank, DISPATCHES[name], ep, etp):
        assert of_tokens <= 1e-12
        assert of_experts <= 1e-12
        assert exchanges == FORWARD_EXCHANGES[name]


@pytest.mark.parametrize(("ep", "etp"), [(4, 1), (2, 2), (1, 4)])
def test_slices_of_experts_are_numbered_in_the_order_of_the_ranks_that_hold_them(ep: int, etp: int) -> None:
    dispatch = AllToAllDispatch(Dropless(CONFIG.num_experts), None, ep, etp)
    experts_TA = torch.arange(CONFIG.num_experts).unsqueeze(-1)
    slices_TA = dispatch.slices(experts_TA)
    assert sorted(slices_TA.flatten().tolist()) == list(range(CONFIG.num_experts * etp))
    here = CONFIG.num_experts // ep
    for expert, slices in enumerate(slices_TA.tolist()):
        assert [one // here for one in slices] == [expert // here * etp + s for s in range(etp)], "the ranks"
        assert {one % here for one in slices} == {expert % here}, "the place on each"
