"""The auxiliary loss, the penalties and the biases against plain formulas."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from project.model.balance import Balance, BalanceReport, balance_report, updated_bias
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
    sums_BK = Balance(config)(chosen, torch.zeros(len(chosen.experts_TA)), batch)
    return balance_report(sums_BK, config.top_k)


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


def test_z_loss_entropy_and_loads_are_the_plain_ones() -> None:
    chosen = routing()
    told = report(chosen, BATCH)
    assert told.z_loss == pytest.approx(chosen.logits_TE.logsumexp(-1).square().mean().item(), rel=1e-6)
    assert told.load_E.tolist() == torch.bincount(chosen.experts_TA.flatten(), minlength=4).tolist()
    assert told.entropy == pytest.approx(torch.distributions.Categorical(chosen.scores_TE).entropy().mean().item())


def test_reports_of_stacked_sums_are_those_of_each() -> None:
    zeros, balance = torch.zeros(BATCH * SEQ), Balance(CONFIG)
    sums = torch.stack([balance(routing(seed), zeros, BATCH) for seed in (0, 1)])
    both, each = balance_report(sums, CONFIG.top_k), [balance_report(one, CONFIG.top_k) for one in sums]
    for ours, *theirs in zip(both, *each, strict=True):
        torch.testing.assert_close(ours, torch.stack(theirs))


def test_the_dropped_fraction_is_the_mean_over_tokens() -> None:
    sums_BK = Balance(CONFIG)(routing(), torch.arange(BATCH * SEQ) % 3 / 2, BATCH)
    assert balance_report(sums_BK, CONFIG.top_k).dropped == pytest.approx(0.5)


@pytest.mark.parametrize("per", ["sequence", "microbatch"])
@pytest.mark.parametrize(("auxiliary", "z"), [(0.3, 0.2), (0.3, 0.0), (0.0, 0.2)])
def test_the_penalties_reach_the_router_without_changing_the_activations(per: str, auxiliary: float, z: float) -> None:
    config = replace(CONFIG, auxiliary_per=per, auxiliary_coefficient=auxiliary, z_coefficient=z)
    chosen = routing()
    sequences = BATCH if per == "sequence" else 1
    count_BE, score_BE = (
        x_TE.unflatten(0, (sequences, -1)).mean(1)
        for x_TE in (F.one_hot(chosen.experts_TA, 4).float().sum(1), chosen.scores_TE)
    )
    plain = auxiliary * (4 / 2 * (count_BE * score_BE).sum(-1)).mean()
    plain = plain + z * chosen.logits_TE.logsumexp(-1).square().mean()
    wanted = torch.autograd.grad(0.5 * plain, chosen.logits_TE, retain_graph=True)[0]

    x, balance = torch.ones(2, requires_grad=True), Balance(config)
    sums_BK = balance(chosen, torch.zeros(BATCH * SEQ), BATCH)
    y = balance.joined(x, chosen, sums_BK, 0.5)
    assert torch.equal(y, x)
    x_grad, logits_grad = torch.autograd.grad(y.sum(), (x, chosen.logits_TE))
    torch.testing.assert_close(logits_grad, wanted)
    assert x_grad.tolist() == [1.0, 1.0]


def test_without_a_coefficient_nothing_joins_the_backward() -> None:
    config = replace(CONFIG, auxiliary_coefficient=0.0, z_coefficient=0.0)
    x, chosen = torch.ones(2), routing()
    assert Balance(config).joined(x, chosen, torch.zeros(BATCH, 12), 0.5) is x


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
