"""The one-rank oracle: the bare model in fp64 with autograd, without strategy or schedule, and without microbatches
except where the model's auxiliary loss is defined over them."""

from collections.abc import Iterator
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from project.engine.split_model import IGNORED
from project.model.balance import Balancing, balance_report
from project.model.router import Routing
from project.model.transformer import Transformer
from project.spec.layout import ParallelLayout
from project.spec.model import ModelConfig
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


class Penalties:
    """The penalties of a model's routers by plain autograd, added up as its forwards run, and each auxiliary loss."""

    def __init__(self, model: Transformer, config: ModelConfig) -> None:
        self.config, self.batch = config, 0
        self.total, self.auxiliary = torch.zeros((), dtype=torch.float64), list[Tensor]()
        model.register_forward_pre_hook(self.see_batch)
        for router in routers(model):
            router.register_forward_hook(self.add)

    def see_batch(self, model: nn.Module, args: tuple) -> None:
        self.batch = len(args[0])

    def add(self, router: nn.Module, args: tuple, routing: Routing) -> None:
        config = self.config
        sequences = 1 if config.auxiliary_per == "microbatch" else self.batch
        chosen_TE = F.one_hot(routing.experts_TA, config.num_experts).double().sum(1)
        share_BE, score_BE = (x_TE.unflatten(0, (sequences, -1)).mean(1) for x_TE in (chosen_TE, routing.scores_TE))
        auxiliary = config.num_experts / config.top_k * (share_BE * score_BE).sum(-1).mean()
        coefficient = config.auxiliary_coefficient if config.expert_balance == "auxiliary" else 0.0
        z = routing.logits_TE.logsumexp(-1).square().mean()
        self.total = self.total + coefficient * auxiliary + config.z_coefficient * z
        self.auxiliary.append(auxiliary.detach())

    def take(self) -> tuple[Tensor, list[Tensor]]:
        taken = self.total, self.auxiliary
        self.total, self.auxiliary = torch.zeros((), dtype=torch.float64), []
        return taken


def oracle(case: Case) -> Outcome:
    """Trains the whole model with plain autograd, on the case's batches."""
    model = whole_model(case)
    penalties = Penalties(model, case.model)
    config = OptimizerConfig(learning_rate=LEARNING_RATE)
    optimizer = build_optimizer(config, model.named_parameters())
    outcome = Outcome(initial=copies(model.named_parameters()))
    for step, window in enumerate(chunked(batches(case), case.accumulate)):
        losses, auxiliary, dropped, loads = [], [], [], []
        counts = [int((batch["targets"] != IGNORED).sum()) for batch in window]
        for batch, count in zip(window, counts, strict=True):
            balancing = Balancing(penalty_scale=0.0)  # nothing joined: here the penalties are simply added
            cut = batch["tokens"].chunk(case.layout.microbatches)
            logits = torch.cat([model(tokens, balancing) for tokens in cut])
            loss = cross_entropy(logits, batch["targets"])
            penalty, of_routers = penalties.take()
            ((loss + penalty / len(cut)) * (count / sum(counts))).backward()
            losses.append(loss.item())
            layers = [[balance_report(sums, case.model.top_k) for sums in layer] for layer in balancing.sums.values()]
            loads.append([torch.stack([report.load_E for report in layer]).sum(0) for layer in layers])
            told = [report for layer in layers for report in layer]
            auxiliary.append(sum(each.item() for each in of_routers) / max(1, len(of_routers)))
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
