"""Every layout computes what one rank computes in fp64."""

from dataclasses import replace

import pytest
import torch

from project.spec.layout import ParallelLayout
from tests.harness.case import SMALL, Case
from tests.harness.oracle import expected
from tests.harness.outcome import TOLERANCE, check_step, relative
from tests.harness.training import train

LAYOUTS = {
    "single": ParallelLayout(microbatches=4),
    "tp2_ep2_pp2": ParallelLayout(pp=2, tp=2, ep=2, microbatches=4),
    "tp4_ep4": ParallelLayout(tp=4, ep=4, microbatches=4),
    "pp4": ParallelLayout(pp=4, microbatches=4),
    "tp4_ep4_pp4": ParallelLayout(pp=4, tp=4, ep=4, microbatches=4),
    "tp2 without ep": ParallelLayout(tp=2, microbatches=2),
    "gpipe": ParallelLayout(pp=2, tp=2, ep=2, microbatches=4, schedule="GPipe"),
}
DOCUMENTED = ("single", "tp2_ep2_pp2", "tp4_ep4", "pp4", "tp4_ep4_pp4")


@pytest.mark.parametrize("precision", ["32-true", "64-true"])
@pytest.mark.parametrize("name", LAYOUTS)
def test_documented_layouts_agree_with_the_oracle_in_loss_and_every_gradient(ranks, name: str, precision: str) -> None:
    case = Case(LAYOUTS[name], precision=precision)
    check_step(train(ranks, case, initial=True), expected(ranks, case), TOLERANCE[precision])


@pytest.mark.parametrize("name", LAYOUTS)
def test_initial_weights_are_bit_identical_under_every_layout(ranks, name: str) -> None:
    case = Case(LAYOUTS[name])
    actual, wanted = train(ranks, case, initial=True).initial, expected(ranks, case).initial
    assert actual.keys() == wanted.keys()
    assert all(torch.equal(actual[key], wanted[key].float()) for key in wanted)


@pytest.mark.parametrize("name", DOCUMENTED)
def test_ten_steps_stay_with_the_oracle(ranks, name: str) -> None:
    case = Case(LAYOUTS[name], steps=10)
    actual, wanted = train(ranks, case), expected(ranks, case)
    assert actual.losses == pytest.approx(wanted.losses, rel=1e-4)
    assert max(relative(actual.final[key], wanted.final[key]) for key in wanted.final) <= 1e-4


@pytest.mark.parametrize("name", ["single", "tp2_ep2_pp2", "tp4_ep4_pp4"])
def test_gradients_and_loss_of_accumulated_batches_are_averaged(ranks, name: str) -> None:
    case = Case(LAYOUTS[name], accumulate=2)
    actual, wanted = train(ranks, case), expected(ranks, case)
    check_step(actual, wanted, 1e-5)
    assert actual.losses[1] == pytest.approx(sum(wanted.losses) / 2, rel=1e-5), "what is logged is the step's mean"


# Models that the parity matrix does not have.
MODELS = {
    "dense layers only": replace(SMALL, num_dense_layers=4),
    "a capacity": replace(SMALL, num_experts=8, capacity_factor=0.75, capacity_group=4),
    "odd widths, for which there is no grouped GEMM": replace(SMALL, d_ff=50),
}


@pytest.mark.parametrize("name", ["tp2_ep2_pp2", "tp2 without ep"])
@pytest.mark.parametrize("model", MODELS)
def test_other_models_agree_with_the_oracle(ranks, model: str, name: str) -> None:
    case = Case(LAYOUTS[name], model=MODELS[model])
    check_step(train(ranks, case), expected(ranks, case), 1e-5)


@pytest.mark.parametrize("name", ["single", "tp4_ep4_pp4"])
def test_a_capacity_drops_the_same_tokens_under_every_layout(ranks, name: str) -> None:
    case = Case(LAYOUTS[name], model=MODELS["a capacity"])
    actual, wanted = train(ranks, case), expected(ranks, case)
    assert wanted.dropped_fractions[0] > 0.2, "the capacity has to bite"
    check_step(actual, wanted, 1e-5)


def test_expert_biases_move_in_the_layers_that_have_experts(ranks) -> None:
    model = replace(SMALL, num_dense_layers=1, expert_balance="bias", bias_update_rate=1e-3)
    case = Case(LAYOUTS["tp2_ep2_pp2"], model=model, steps=2)
    actual, wanted = train(ranks, case), expected(ranks, case)
    assert actual.biases.keys() == {f"layers.{layer}.moe.router.expert_bias" for layer in (1, 2, 3)}
    assert all(torch.equal(actual.biases[name], wanted.biases[name].float()) for name in wanted.biases)


@pytest.mark.parametrize("recompute", ["none", "full"])
@pytest.mark.parametrize("precision", ["32-true", "bf16-true"])
def test_expert_biases_move_as_the_loads_of_a_whole_step_say(ranks, precision: str, recompute: str) -> None:
    model = replace(SMALL, expert_balance="bias", bias_update_rate=1e-3)
    layout = replace(LAYOUTS["tp2_ep2_pp2"], recompute=recompute)
    case = Case(layout, model=model, precision=precision, steps=3, accumulate=2)
    actual = train(ranks, case)
    assert actual.biases.keys() == {f"layers.{layer}.moe.router.expert_bias" for layer in range(model.num_layers)}
    if precision == "32-true":
        wanted = expected(ranks, case)
        assert all(torch.equal(actual.biases[name], wanted.biases[name].float()) for name in wanted.biases)
    steps = torch.stack(list(actual.biases.values())) / model.bias_update_rate
    torch.testing.assert_close(steps, steps.round(), rtol=0, atol=1e-3)
    assert steps.any()


@pytest.mark.parametrize("name", ["single", "tp2_ep2_pp2", "tp4_ep4_pp4"])
def test_clipping_uses_the_norm_of_the_whole_model(ranks, name: str) -> None:
    case = Case(LAYOUTS[name], steps=3, clip=0.1)
    actual, wanted = train(ranks, case), expected(ranks, case)
    assert min(wanted.grad_norms) > 2 * case.clip, "clipping has to bite"
    assert actual.grad_norms == pytest.approx(wanted.grad_norms, rel=1e-4)
    assert actual.losses == pytest.approx(wanted.losses, rel=1e-5)
    assert max(relative(actual.final[key], wanted.final[key]) for key in wanted.final) <= 1e-4
