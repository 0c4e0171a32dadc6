"""The one-rank oracle: the bare model in fp64 with autograd, without strategy or schedule, and without microbatches
except where the model's auxiliary loss is defined over them."""

from collections.abc import Iterator
from dataclasses import replace

import torch

from project.engine.split_model import IGNORED
from project.model.balance import BalanceReport
from project.model.transformer import Balancing
from project.spec.layout import ParallelLayout
from project.training.optimizer import OptimizerConfig, build_optimizer
from project.training.split_transformer import cross_entropy
from tests.harness.case import LEARNING_RATE, Case, batches, routers, whole_model
from tests.harness.outcome import Outcome, biases, copies
from tests.harness.ranks import RankPools


def expected(pools: RankPools, case: Case) -> Outcome:
    """The oracle's outcome for `case`, computed once a session. It depends on the layout only where the auxiliary loss
    is defined over the sequences of a microbatch, and not on the precision."""
    cut = case.layout.dp * case.layout.microbatches if case.model.auxiliary_per == "microbatch" else 1
    asked = replace(case, layout=ParallelLayout(microbatches=cut), precision="64-true")
    return pools.once(("oracle", asked), lambda: pools.run(1, oracle_on_a_rank, asked)[0])


def oracle_on_a_rank(rank: int, world_size: int, case: Case) -> Outcome:
    """Runs the oracle on a rank of a pool, because the tests' own process must not run a backward before it forks."""
    return oracle(case)


class WithGraph(Balancing):
    """Balance reports that keep their graph, so that the oracle can add the penalties to the loss."""

    def note(self, layer: int, report: BalanceReport) -> None:
        self.reports.setdefault(layer, []).append(report)


def oracle(case: Case) -> Outcome:
    """Trains the whole model with plain autograd, on the case's batches."""
    model = whole_model(case)
    config = OptimizerConfig(learning_rate=LEARNING_RATE)
    optimizer = build_optimizer(config, model.named_parameters())
    outcome = Outcome(initial=copies(model.named_parameters()))
    for step, window in enumerate(chunked(batches(case), case.accumulate)):
        losses, auxiliary, dropped, loads = [], [], [], []
        counts = [int((batch["targets"] != IGNORED).sum()) for batch in window]
        for batch, count in zip(window, counts, strict=True):
            balancing = WithGraph(penalty_scale=0.0)  # nothing injected: here the penalties are simply added
            cut = batch["tokens"].chunk(case.layout.microbatches)
            logits = torch.cat([model(tokens, balancing) for tokens in cut])
            loss = cross_entropy(logits, batch["targets"])
            layers = list(balancing.reports.values())
            penalty = sum(report.penalty for layer in layers for report in layer) / len(cut)
            ((loss + penalty) * (count / sum(counts))).backward()
            losses.append(loss.item())
            loads.append([torch.stack([report.load_E for report in layer]).sum(0) for layer in layers])
            told = [report for layer in layers for report in layer]
            auxiliary.append(sum(report.auxiliary_loss.item() for report in told) / max(1, len(told)))
            dropped.append(sum(report.dropped.item() for report in told) / max(1, len(told)))
        if step == 0:
            outcome.gradients = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}
        norm = torch.linalg.vector_norm(torch.cat([p.grad.flatten() for p in model.parameters()])).item()
        if case.clip is not None and norm > case.clip:
            for parameter in model.parameters():
                parameter.grad.mul_(case.clip / norm)
        outcome.losses += losses
        outcome.auxiliary_losses += auxiliary
        outcome.dropped_fractions += dropped
        outcome.grad_norms.append(norm)
        optimizer.step()
        optimizer.zero_grad()
        if case.model.expert_balance == "bias":
            for router, *seen in zip(routers(model), *loads, strict=True):
                load = torch.stack(seen).sum(0)
                router.expert_bias += case.model.bias_update_rate * torch.sign(load.mean() - load)
    outcome.final = copies(model.named_parameters())
    outcome.biases = biases(model)
    return outcome


def chunked(items: list, size: int) -> Iterator[list]:
    yield from (items[start : start + size] for start in range(0, len(items), size))
