"""A case of training under some layout, and the one-rank oracle it is held against.

A case runs on real ranks under a plain `Trainer.fit`; the oracle is the bare model in fp64 with autograd, no strategy,
no schedule, and no microbatches but where the model's own formula is over them.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import lightning.pytorch as L
import torch
from lightning.fabric.plugins.environments import LightningEnvironment
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.utils.data import DataLoader

from project.model.balance import BalanceReport
from project.model.init import initial_weight, reset_buffers
from project.model.router import Router
from project.model.transformer import Balancing, Transformer
from project.spec.layout import ParallelLayout
from project.spec.model import ModelConfig
from project.strategy.hybrid import HybridParallelStrategy
from project.training.loss import cross_entropy
from project.training.module import MoEModule
from project.training.optimizer import OptimizerConfig, build_optimizer

SMALL = ModelConfig(
    num_layers=4, d_model=32, num_heads=4, num_kv_heads=4, head_dim=8, d_ff=48, vocab_size=64, max_seq_len=32
)
LEARNING_RATE = 1e-3


@dataclass(frozen=True)
class Case:
    """`starved` is an expert that no token may choose, `favoured` one that all choose; `tied` routers score all experts
    the same."""

    layout: ParallelLayout
    model: ModelConfig = SMALL
    precision: str = "32-true"
    steps: int = 1
    accumulate: int = 1
    clip: float | None = None
    starved: int | None = None
    favoured: int | None = None
    tied: bool = False
    batch: int = 8
    seq_len: int = 16


@dataclass
class Outcome:
    """Per step losses and norms; gradients of the first step, before clipping; weights before and after; all whole
    and by global name."""

    losses: list[float] = field(default_factory=list)
    auxiliary_losses: list[float] = field(default_factory=list)
    dropped_fractions: list[float] = field(default_factory=list)
    grad_norms: list[float] = field(default_factory=list)
    gradients: dict[str, Tensor] = field(default_factory=dict)
    initial: dict[str, Tensor] = field(default_factory=dict)
    final: dict[str, Tensor] = field(default_factory=dict)
    biases: dict[str, Tensor] = field(default_factory=dict)


def batches(case: Case) -> list[dict[str, Tensor]]:
    generator = torch.Generator().manual_seed(1)
    shape = (case.steps * case.accumulate, case.batch, case.seq_len + 1)
    text = torch.randint(0, case.model.vocab_size, shape, generator=generator)
    return [{"tokens": batch[:, :-1].contiguous(), "targets": batch[:, 1:].contiguous()} for batch in text]


def biases(model: Transformer) -> dict[str, Tensor]:
    return {name: buffer.cpu().clone() for name, buffer in model.named_buffers() if name.endswith("expert_bias")}


def steer(model: Transformer, case: Case) -> None:
    """Into the corners: by the bias, which no gradient touches."""
    for router in routers(model):
        if case.starved is not None:
            router.expert_bias[case.starved] = -1e6
        if case.favoured is not None:
            router.expert_bias[case.favoured] = 1e6


def routers(model: Transformer) -> list[Router]:
    return [block.moe.router for block in model.layers.values() if not block.dense]


# -- one rank -----------------------------------------------------------------------------------------------------


class WithGraph(Balancing):
    def note(self, layer: int, report: BalanceReport) -> None:
        self.reports.setdefault(layer, []).append(report)


def oracle(case: Case) -> Outcome:
    model = whole_model(case)
    config = OptimizerConfig(learning_rate=LEARNING_RATE)
    optimizer = build_optimizer(config, model.named_parameters())
    outcome = Outcome(initial=copies(model.named_parameters()))
    for step, window in enumerate(chunked(batches(case), case.accumulate)):
        losses, auxiliary, dropped, loads = [], [], [], []
        for batch in window:
            balancing = WithGraph(penalty_scale=0.0)  # nothing injected: here the penalties are simply added
            cut = batch["tokens"].chunk(case.layout.microbatches)
            logits = torch.cat([model(tokens, balancing) for tokens in cut])
            loss = cross_entropy(logits, batch["targets"])
            layers = list(balancing.reports.values())
            penalty = sum(report.penalty for layer in layers for report in layer) / len(cut)
            ((loss + penalty) / case.accumulate).backward()
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


@torch.no_grad()
def whole_model(case: Case, dtype: torch.dtype = torch.float64) -> Transformer:
    model = Transformer(case.model).to(dtype)
    for name, parameter in model.named_parameters():
        parameter.copy_(whole_initial_weight(case, name, parameter.shape))
    reset_buffers(model)
    steer(model, case)
    return model


def oracle_on_a_rank(rank: int, world_size: int, case: Case) -> Outcome:
    """Not in the tests' own process, which is kept from running a backward."""
    return oracle(case)


def whole_initial_weight(case: Case, name: str, shape: torch.Size) -> Tensor:
    if len(shape) < 3:
        return first_weight(case, name, shape, None)
    return torch.stack([first_weight(case, name, shape[1:], index) for index in range(shape[0])])


def first_weight(case: Case, name: str, shape: torch.Size, index: int | None) -> Tensor:
    if case.tied and name.endswith("router.weight"):
        return torch.zeros(shape)
    return initial_weight(case.model, 0, name, shape, index)


def copies(named: Any) -> dict[str, Tensor]:
    return {name: parameter.detach().clone() for name, parameter in named}


def chunked(items: list, size: int) -> Iterator[list]:
    yield from (items[start : start + size] for start in range(0, len(items), size))


# -- many ranks ---------------------------------------------------------------------------------------------------


class PooledRanks(LightningEnvironment):
    """Processes that are there already, in a group that is there already."""

    def __init__(self, rank: int, world_size: int) -> None:
        super().__init__()
        self._rank, self._size = rank, world_size

    creates_processes_externally = True

    def local_rank(self) -> int:
        return self._rank

    def global_rank(self) -> int:
        return self._rank

    def world_size(self) -> int:
        return self._size

    def set_global_rank(self, rank: int) -> None: ...

    def set_world_size(self, size: int) -> None: ...

    def teardown(self) -> None: ...


class CaseModule(MoEModule):
    """Training at a constant rate, with the case's routing."""

    def __init__(self, case: Case) -> None:
        super().__init__(case.model, OptimizerConfig(learning_rate=LEARNING_RATE), seq_len=case.seq_len)
        self.case = case

    def reset_part(self, part: Any) -> None:
        super().reset_part(part)
        steer(part, self.case)

    def initial_weight(self, name: str, shape: torch.Size, index: int | None) -> Tensor:
        return first_weight(self.case, name, shape, index)

    def configure_optimizers(self) -> Any:
        return build_optimizer(self.optimizer_config, self.named_weights())


class Observer(L.Callback):
    """Writes down what happens, as any user's callback would see it."""

    def __init__(self) -> None:
        self.outcome = Outcome()

    def on_train_start(self, trainer: L.Trainer, module: Any) -> None:
        self.outcome.initial = whole(module)

    def on_before_optimizer_step(self, trainer: L.Trainer, module: Any, optimizer: Any) -> None:
        if not self.outcome.gradients:
            self.outcome.gradients = whole(module, gradients=True)
        self.outcome.grad_norms.append(trainer.strategy.grad_norm)

    def on_train_batch_end(self, trainer: L.Trainer, module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.outcome.losses.append(trainer.callback_metrics["train/loss"].item())
        self.outcome.auxiliary_losses.append(trainer.callback_metrics["train/aux_loss"].item())
        self.outcome.dropped_fractions.append(trainer.callback_metrics["train/dropped_fraction"].item())

    def on_train_end(self, trainer: L.Trainer, module: Any) -> None:
        self.outcome.final = whole(module)
        for part in module.parts:
            self.outcome.biases |= biases(part)


def whole(module: MoEModule, gradients: bool = False) -> dict[str, Tensor]:
    """This stage's weights or gradients by global name; every rank of the stage takes part in putting them together."""
    values = {name: weight.grad if gradients else weight.detach() for name, weight in module.named_weights()}
    return {name: (v.full_tensor() if isinstance(v, DTensor) else v).cpu().clone() for name, v in values.items()}


def trainer(rank: int, world_size: int, case: Case, **options: Any) -> L.Trainer:
    """A plain Trainer on one of the pool's ranks, with nothing but the strategy and the caller's options."""
    defaults: dict[str, Any] = {
        "accelerator": "cpu",
        "devices": world_size,
        "strategy": HybridParallelStrategy(case.layout, case.precision),
        "plugins": [PooledRanks(rank, world_size)],
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "inference_mode": False,
        "use_distributed_sampler": False,
        "num_sanity_val_steps": 0,
        "log_every_n_steps": 1,
    }
    return L.Trainer(**(defaults | options))


def loader(case: Case, rank: int) -> DataLoader:
    """What the rank's replica sees: its share of each batch's sequences."""
    share = case.batch // case.layout.dp
    replica = case.layout.coordinates(rank).dp
    mine = slice(replica * share, (replica + 1) * share)
    shares = [{key: tensor[mine].clone() for key, tensor in batch.items()} for batch in batches(case)]
    return DataLoader(shares, batch_size=None)  # type: ignore[arg-type]


def fit(rank: int, world_size: int, case: Case, **options: Any) -> Outcome:
    observer = Observer()
    engine = trainer(
        rank,
        world_size,
        case,
        max_steps=case.steps,
        accumulate_grad_batches=case.accumulate,
        gradient_clip_val=case.clip,
        callbacks=[observer],
        **options,
    )
    engine.fit(CaseModule(case), loader(case, rank))
    return observer.outcome


def train(pools: Any, case: Case) -> Outcome:
    """The whole model's outcome: losses as any rank reports them, tensors from the stages that hold them.

    Raises:
        AssertionError: if ranks disagree on what they all should know."""
    return pools.once(("train", case), lambda: merged(pools.run(case.layout.world_size, fit, case)))


def merged(outcomes: list[Outcome]) -> Outcome:
    first = outcomes[0]
    for outcome in outcomes[1:]:
        assert (outcome.losses, outcome.auxiliary_losses, outcome.grad_norms) == (
            first.losses,
            first.auxiliary_losses,
            first.grad_norms,
        ), "ranks report different numbers"
    together = replace(first, gradients={}, initial={}, final={}, biases={})
    for outcome in outcomes:
        for kind in ("gradients", "initial", "final", "biases"):
            collected = getattr(together, kind)
            for name, tensor in getattr(outcome, kind).items():
                assert name not in collected or torch.equal(collected[name], tensor), f"replicas of {name} differ"
                collected[name] = tensor
    return together


def expected(pools: Any, case: Case) -> Outcome:
    """The oracle's outcome: of the case, so of its layout and precision nothing, but for a loss that is by definition
    over the sequences of a microbatch."""
    cut = case.layout.dp * case.layout.microbatches if case.model.auxiliary_per == "microbatch" else 1
    asked = replace(case, layout=ParallelLayout(microbatches=cut), precision="64-true")
    return pools.once(("oracle", asked), lambda: pools.run(1, oracle_on_a_rank, asked)[0])
