"""With a capacity, an expert takes a bounded number of tokens of each group, first choices first, as plain loops do."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from project.model.balance import balance_report
from project.model.dispatch import Capacity, Dropless, LocalDispatch
from project.model.moe import MoE
from project.spec.model import ModelConfig

D = 3


def chosen_experts(tokens: int, assignments: int, experts: int) -> Tensor:
    return torch.rand(tokens, experts).argsort(-1)[:, :assignments]


def computed(dispatch: LocalDispatch, x_TD: Tensor, experts_TA: Tensor, weights_TA: Tensor) -> Tensor:
    """A dispatch's output with experts of which number e raises a row to the power of e + 1."""
    rows_ND, counts_E, order = dispatch(x_TD, experts_TA)
    power_N = torch.arange(1, len(counts_E) + 1).repeat_interleave(counts_E)
    return dispatch.combine(rows_ND ** power_N.unsqueeze(-1), weights_TA, order)


def token_by_token(
    x_TD: Tensor, experts_TA: Tensor, weights_TA: Tensor, group: int, capacity: int
) -> tuple[Tensor, Tensor]:
    """The output, and the dropped assignments, computed by loops."""
    out_TD, dropped_TA = torch.zeros_like(x_TD), torch.zeros_like(experts_TA, dtype=torch.bool)
    for start in range(0, len(x_TD), group):
        taken: dict[int, int] = {}
        for choice in range(experts_TA.shape[1]):
            for token in range(start, start + group):
                expert = int(experts_TA[token, choice])
                if taken.get(expert, 0) == capacity:
                    dropped_TA[token, choice] = True
                else:
                    taken[expert] = taken.get(expert, 0) + 1
                    out_TD[token] = out_TD[token] + weights_TA[token, choice] * x_TD[token] ** (expert + 1)
    return out_TD, dropped_TA


@st.composite
def cases(draw: st.DrawFn) -> tuple[int, int, int, int, int]:
    """Draws the number of groups, their size, experts, assignments, and the factor in hundredths."""
    experts = draw(st.integers(1, 6))
    assignments = draw(st.integers(1, experts))
    return draw(st.integers(1, 4)), draw(st.integers(1, 8)), experts, assignments, draw(st.integers(1, 300))


@settings(max_examples=60, deadline=None)
@given(cases(), st.integers(0, 2**32))
def test_capacity_dispatch_computes_and_drops_what_a_loop_over_tokens_does(
    case: tuple[int, int, int, int, int], seed: int
) -> None:
    groups, group, experts, assignments, hundredths = case
    torch.manual_seed(seed)
    x_TD = torch.rand(groups * group, D, dtype=torch.float64, requires_grad=True)
    weights_TA = torch.rand(groups * group, assignments, dtype=torch.float64, requires_grad=True)
    experts_TA = chosen_experts(groups * group, assignments, experts)
    dispatch = Capacity(experts, hundredths / 100, group)
    capacity = -(-hundredths * group * assignments // (100 * experts))
    wanted_TD, dropped_TA = token_by_token(x_TD, experts_TA, weights_TA, group, capacity)
    actual_TD = computed(dispatch, x_TD, experts_TA, weights_TA)
    torch.testing.assert_close(actual_TD, wanted_TD, rtol=1e-12, atol=1e-12)
    up_TD = torch.rand_like(x_TD)
    for actual, wanted in zip(
        torch.autograd.grad(actual_TD, (x_TD, weights_TA), up_TD),
        torch.autograd.grad(wanted_TD, (x_TD, weights_TA), up_TD),
        strict=True,
    ):
        torch.testing.assert_close(actual, wanted, rtol=1e-12, atol=1e-12)
    _, _, order = dispatch(x_TD, experts_TA)
    torch.testing.assert_close(dispatch.dropped(experts_TA, order), dropped_TA.float().mean(-1))


def test_capacity_dispatch_passes_gradcheck() -> None:
    torch.manual_seed(0)
    experts_TA = chosen_experts(12, 2, 4)
    x_TD = torch.rand(12, D, dtype=torch.float64, requires_grad=True)
    weights_TA = torch.rand(12, 2, dtype=torch.float64, requires_grad=True)
    dispatch = Capacity(4, 0.75, group=6)
    assert dispatch.dropped(experts_TA, dispatch.slots(experts_TA)).any()
    torch.autograd.gradcheck(lambda x, weights: computed(dispatch, x, experts_TA, weights), (x_TD, weights_TA))


@pytest.mark.parametrize("assignments", [1, 2, 3])
def test_capacity_dispatch_with_room_for_all_is_the_dropless_dispatch(assignments: int) -> None:
    torch.manual_seed(0)
    experts_TA, x_TD = chosen_experts(24, assignments, 4), torch.rand(24, D)
    weights_TA = torch.rand(24, assignments)
    dispatch = Capacity(4, 4.0, group=8)
    assert not dispatch.dropped(experts_TA, dispatch.slots(experts_TA)).any()
    assert torch.equal(
        computed(dispatch, x_TD, experts_TA, weights_TA), computed(Dropless(4), x_TD, experts_TA, weights_TA)
    )


def test_where_all_choose_one_expert_its_capacity_serves_the_first_tokens_of_each_group() -> None:
    experts_TA = torch.full((8, 1), 2)
    dispatch = Capacity(4, 2.0, group=4)  # 2 slots
    rows_ND, counts_E, order = dispatch(torch.arange(1.0, 9.0).unsqueeze(-1), experts_TA)
    assert counts_E.tolist() == [4, 4, 4, 4]
    assert rows_ND.unflatten(0, (4, -1)).squeeze(-1).tolist() == [[0] * 4, [0] * 4, [1, 2, 5, 6], [0] * 4]
    assert dispatch.dropped(experts_TA, order).tolist() == [0, 0, 1, 1, 0, 0, 1, 1]


def test_a_first_choice_is_served_before_the_second_choice_of_an_earlier_token() -> None:
    experts_TA = torch.tensor([[1, 0], [0, 1]])
    dispatch = Capacity(2, 0.5, group=2)  # 1 slot
    assert dispatch.slots(experts_TA).row_TA.tolist() == [[1, -1], [0, -1]]


def test_tokens_dropped_in_one_group_do_not_depend_on_the_others() -> None:
    torch.manual_seed(0)
    experts_TA = chosen_experts(32, 2, 4)
    dispatch = Capacity(4, 0.75, group=8)
    whole = dispatch.slots(experts_TA).row_TA < 0
    parts = [dispatch.slots(part_TA).row_TA < 0 for part_TA in experts_TA.split(8)]
    assert torch.equal(whole, torch.cat(parts))


@pytest.mark.parametrize(("factor", "group", "slots"), [(1.1, 100, 110), (1.0, 8, 8), (1.01, 100, 101), (1e-9, 8, 1)])
def test_an_expert_s_capacity_is_exact(factor: float, group: int, slots: int) -> None:
    """The capacity is exact although 1.1 * 100 is more than 110 in binary."""
    assert Capacity(num_experts=2, factor=factor, group=group).capacity(assignments=2) == slots


def test_slices_of_experts_have_the_capacity_of_the_experts() -> None:
    whole = Capacity(4, 1.25, group=16)
    assert whole.over(8).capacity(2 * 2) == whole.capacity(2)
    assert whole.over(8).rows_per_expert(64, 2 * 2) == whole.rows_per_expert(64, 2) == 4 * 10


def test_capacity_dispatch_has_static_shapes_known_without_any_data() -> None:
    """Shapes do not depend on data: on the meta device there is none."""
    dispatch = Capacity(4, 1.25, group=8)
    with torch.device("meta"):
        rows_ND, counts_E, order = dispatch(
            torch.empty(32, D, requires_grad=True), torch.empty(32, 2, dtype=torch.int64)
        )
        out_TD = dispatch.combine(rows_ND, torch.empty(32, 2), order)
        out_TD.sum().backward()
    assert (rows_ND.shape, counts_E.shape, out_TD.shape) == ((4 * 4 * 5, D), (4,), (32, D))
    assert dispatch.rows_per_expert(32, 2) == 4 * 5


def test_a_token_that_is_dropped_keeps_its_nan_to_itself() -> None:
    experts_TA = torch.zeros(4, 1, dtype=torch.int64)
    x_TD = torch.tensor([1.0, 2.0, float("nan"), 4.0]).unsqueeze(-1).requires_grad_()
    out_TD = computed(Capacity(2, 1.0, group=4), x_TD, experts_TA, torch.ones(4, 1))
    out_TD.sum().backward()
    assert out_TD.flatten().tolist() == [1, 2, 0, 0]
    assert x_TD.grad.flatten().tolist() == [1, 1, 0, 0]


# -- in a mixture of experts ------------------------------------------------------------------------------------


def built(dtype: torch.dtype = torch.float32) -> MoE:
    torch.manual_seed(0)
    config = ModelConfig(d_model=16, d_ff=24, num_experts=4, top_k=2, capacity_factor=0.75, capacity_group=8)
    moe = MoE(config).to(dtype)
    for parameter in moe.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return moe


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_capacity_dispatch_computes_the_same_up_to_rounding_in_every_precision(dtype: torch.dtype) -> None:
    moe, wanted = built(dtype), built(torch.float64)
    x_BSD = torch.randn(2, 16, 16).to(dtype)
    with torch.no_grad():
        for parameter, rounded in zip(wanted.parameters(), moe.parameters(), strict=True):
            parameter.copy_(rounded)
    out_BSD, sums_BK = moe(x_BSD)
    assert out_BSD.dtype == dtype
    assert 0 < balance_report(sums_BK, moe.router.top_k).dropped < 0.5
    rounding = 8 * torch.finfo(dtype).eps
    torch.testing.assert_close(out_BSD.double(), wanted(x_BSD.double())[0], rtol=rounding, atol=rounding)


def test_under_autocast_parameters_get_gradients_in_their_own_precision() -> None:
    moe = built()
    with torch.autocast("cpu", torch.bfloat16):
        out_BSD, _ = moe(torch.randn(2, 16, 16))
    out_BSD.float().square().sum().backward()
    assert {parameter.grad.dtype for parameter in moe.parameters()} == {torch.float32}


def test_recomputing_a_moe_with_a_capacity_changes_no_bit() -> None:
    torch.manual_seed(0)
    x_BSD, gradients = torch.randn(2, 16, 16), []
    for run in (lambda moe: moe(x_BSD)[0], lambda moe: checkpoint(moe, x_BSD, use_reentrant=False)[0]):
        moe = built()
        run(moe).square().sum().backward()
        gradients.append([parameter.grad for parameter in moe.parameters()])
    assert all(map(torch.equal, *gradients))
