"""The auxiliary loss, the penalties and the biases against plain formulas."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from project.model.balance import Balance, BalanceReport, Penalty, updated_bias
from project.model.router import Router, Routing
from project.spec.model import ModelConfig

CONFIG = ModelConfig(d_model=16, num_experts=4, top_k=2, auxiliary_coefficient=0.3, z_coefficient=0.2)
BATCH, SEQ = 3, 10


def routing(seed: int = 0) -> Routing:
    torch.manual_seed(seed)
    router = Router(CONFIG)
    torch.nn.init.normal_(router.weight)
    return router(torch.randn(BATCH * SEQ, CONFIG.d_model))


def report(chosen: Routing, batch: int, config: ModelConfig = CONFIG) -> BalanceReport:
    return Balance(config)(chosen, torch.zeros(len(chosen.experts_TA)), batch)


def plain_auxiliary_loss(chosen: Routing) -> Tensor:
    """Sums experts / top_k * (share of tokens) * (mean score) over experts, for each sequence."""
    total = torch.zeros(())
    for sequence in range(BATCH):
        tokens = slice(sequence * SEQ, (sequence + 1) * SEQ)
        for expert in range(CONFIG.num_experts):
            share = (chosen.experts_TA[tokens] == expert).sum() / SEQ
            total = total + share * chosen.scores_TE[tokens, expert].mean()
    return total * CONFIG.num_experts / CONFIG.top_k / BATCH


def test_auxiliary_loss_is_the_plain_formula() -> None:
    chosen = routing()
    assert report(chosen, BATCH).auxiliary_loss == pytest.approx(plain_auxiliary_loss(chosen).item(), rel=1e-6)


def test_auxiliary_loss_is_one_when_balanced() -> None:
    scores = torch.full((BATCH * SEQ, 4), 0.25)
    chosen = torch.stack((torch.arange(BATCH * SEQ) % 4, (torch.arange(BATCH * SEQ) + 2) % 4), dim=1)
    even = Routing(chosen, torch.full_like(scores[:, :2], 0.5), scores.log(), scores)
    assert report(even, 1).auxiliary_loss == pytest.approx(1.0)


def test_auxiliary_loss_does_not_depend_on_how_the_batch_is_cut() -> None:
    whole = routing()
    losses = []
    for sequence in range(BATCH):
        tokens = slice(sequence * SEQ, (sequence + 1) * SEQ)
        losses.append(report(Routing(*(part[tokens] for part in whole)), 1).auxiliary_loss)
    assert torch.stack(losses).mean() == pytest.approx(report(whole, BATCH).auxiliary_loss.item(), rel=1e-6)


PER_MICROBATCH = replace(CONFIG, auxiliary_per="microbatch")


def test_auxiliary_loss_per_microbatch_takes_the_sequences_as_one() -> None:
    chosen = routing()
    pooled, joined = report(chosen, BATCH, PER_MICROBATCH), report(chosen, 1)
    torch.testing.assert_close(torch.stack(pooled[:-1]), torch.stack(joined[:-1]), rtol=1e-6, atol=0)
    assert torch.equal(pooled.load_E, joined.load_E)
    assert pooled.auxiliary_loss != pytest.approx(report(chosen, BATCH).auxiliary_loss.item(), rel=1e-3)


def test_auxiliary_loss_per_microbatch_and_per_sequence_agree_on_one_sequence() -> None:
    chosen = routing()
    assert all(map(torch.equal, report(chosen, 1, PER_MICROBATCH), report(chosen, 1)))


def test_the_balance_penalty_is_the_weighted_sum_and_loads_count_assignments() -> None:
    chosen = routing()
    told = report(chosen, BATCH)
    z_loss = chosen.logits_TE.logsumexp(-1).square().mean()
    assert told.penalty.item() == pytest.approx(0.3 * told.auxiliary_loss.item() + 0.2 * z_loss.item(), rel=1e-6)
    assert told.load_E.tolist() == torch.bincount(chosen.experts_TA.flatten(), minlength=4).tolist()
    assert told.entropy == pytest.approx(torch.distributions.Categorical(chosen.scores_TE).entropy().mean().item())


def test_the_dropped_fraction_is_the_mean_over_tokens() -> None:
    dropped_T = torch.arange(BATCH * SEQ) % 3 / 2
    assert Balance(CONFIG)(routing(), dropped_T, BATCH).dropped == pytest.approx(0.5)


def test_the_balance_penalty_reaches_its_parameters_without_changing_the_activations() -> None:
    weight, x = torch.tensor(3.0, requires_grad=True), torch.ones(2, requires_grad=True)
    y = Penalty.apply(x, weight**2, 0.5)
    assert torch.equal(y, x)
    y.sum().backward()
    assert weight.grad.item() == 0.5 * 2 * 3.0
    assert x.grad.tolist() == [1.0, 1.0]


def test_an_expert_s_bias_rises_where_too_few_tokens_went() -> None:
    bias = updated_bias(torch.zeros(4), torch.tensor([1.0, 3.0, 2.0, 2.0]), 0.1)
    assert bias.tolist() == pytest.approx([0.1, -0.1, 0.0, 0.0])


def test_an_expert_s_bias_changes_the_choice_and_not_the_weights() -> None:
    torch.manual_seed(0)
    router = Router(CONFIG)
    torch.nn.init.normal_(router.weight)
    x_TD = torch.randn(BATCH * SEQ, CONFIG.d_model)
    router.expert_bias[0] = 10.0
    chosen = router(x_TD)
    assert (chosen.experts_TA == 0).any(-1).all()
    scores_TA = chosen.scores_TE.gather(-1, chosen.experts_TA)
    torch.testing.assert_close(chosen.weights_TA, scores_TA / scores_TA.sum(-1, keepdim=True))
