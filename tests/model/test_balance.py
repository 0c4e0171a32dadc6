"""The auxiliary loss and its neighbours, against plain formulas."""

import pytest
import torch
from torch import Tensor

from project.model.balance import Balance, Penalty, updated_bias
from project.model.config import ModelConfig
from project.model.router import Router, Routing

CONFIG = ModelConfig(d_model=16, num_experts=4, top_k=2, auxiliary_coefficient=0.3, z_coefficient=0.2)
BATCH, SEQ = 3, 10


def routing(seed: int = 0) -> Routing:
    torch.manual_seed(seed)
    router = Router(CONFIG)
    torch.nn.init.normal_(router.weight)
    return router(torch.randn(BATCH * SEQ, CONFIG.d_model))


def plain_auxiliary_loss(chosen: Routing) -> Tensor:
    """Sequence by sequence and expert by expert: experts / top_k * (share of tokens) * (mean score)."""
    total = torch.zeros(())
    for sequence in range(BATCH):
        tokens = slice(sequence * SEQ, (sequence + 1) * SEQ)
        for expert in range(CONFIG.num_experts):
            share = (chosen.experts_TA[tokens] == expert).sum() / SEQ
            total = total + share * chosen.scores_TE[tokens, expert].mean()
    return total * CONFIG.num_experts / CONFIG.top_k / BATCH


def test_auxiliary_loss_is_the_plain_formula() -> None:
    chosen = routing()
    assert Balance(CONFIG)(chosen, BATCH).auxiliary_loss == pytest.approx(plain_auxiliary_loss(chosen).item(), rel=1e-6)


def test_auxiliary_loss_is_one_when_balanced() -> None:
    scores = torch.full((BATCH * SEQ, 4), 0.25)
    chosen = torch.stack((torch.arange(BATCH * SEQ) % 4, (torch.arange(BATCH * SEQ) + 2) % 4), dim=1)
    even = Routing(chosen, torch.full_like(scores[:, :2], 0.5), scores.log(), scores)
    assert Balance(CONFIG)(even, 1).auxiliary_loss == pytest.approx(1.0)


def test_auxiliary_loss_does_not_depend_on_how_the_batch_is_cut() -> None:
    whole = routing()
    losses = []
    for sequence in range(BATCH):
        tokens = slice(sequence * SEQ, (sequence + 1) * SEQ)
        losses.append(Balance(CONFIG)(Routing(*(part[tokens] for part in whole)), 1).auxiliary_loss)
    assert torch.stack(losses).mean() == pytest.approx(Balance(CONFIG)(whole, BATCH).auxiliary_loss.item(), rel=1e-6)


def test_penalty_is_the_weighted_sum_and_loads_count_assignments() -> None:
    chosen = routing()
    report = Balance(CONFIG)(chosen, BATCH)
    z_loss = chosen.logits_TE.logsumexp(-1).square().mean()
    assert report.penalty.item() == pytest.approx(0.3 * report.auxiliary_loss.item() + 0.2 * z_loss.item(), rel=1e-6)
    assert report.load_E.tolist() == torch.bincount(chosen.experts_TA.flatten(), minlength=4).tolist()
    assert report.entropy == pytest.approx(torch.distributions.Categorical(chosen.scores_TE).entropy().mean().item())


def test_penalty_reaches_its_parameters_without_changing_the_activations() -> None:
    weight, x = torch.tensor(3.0, requires_grad=True), torch.ones(2, requires_grad=True)
    y = Penalty.apply(x, weight**2, 0.5)
    assert torch.equal(y, x)
    y.sum().backward()
    assert weight.grad.item() == 0.5 * 2 * 3.0
    assert x.grad.tolist() == [1.0, 1.0]


def test_bias_rises_where_too_few_tokens_went() -> None:
    bias = updated_bias(torch.zeros(4), torch.tensor([1.0, 3.0, 2.0, 2.0]), 0.1)
    assert bias.tolist() == pytest.approx([0.1, -0.1, 0.0, 0.0])


def test_bias_changes_the_choice_and_not_the_weights() -> None:
    torch.manual_seed(0)
    router = Router(CONFIG)
    torch.nn.init.normal_(router.weight)
    x_TD = torch.randn(BATCH * SEQ, CONFIG.d_model)
    router.expert_bias[0] = 10.0
    chosen = router(x_TD)
    assert (chosen.experts_TA == 0).any(-1).all()
    scores_TA = chosen.scores_TE.gather(-1, chosen.experts_TA)
    torch.testing.assert_close(chosen.weights_TA, scores_TA / scores_TA.sum(-1, keepdim=True))
