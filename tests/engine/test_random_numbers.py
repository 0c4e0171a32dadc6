"""Dropout under a layout: masks alike where ranks hold the same activation, different where they do not, the same in
recomputation, and drawn anew by a resumed run as the run before would have drawn them."""

from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning.pytorch as L
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader

from project.engine.parts import local_tensor
from project.engine.random_numbers import DROPOUT
from project.spec.layout import ParallelLayout
from project.spec.partition import Part
from tests.harness.case import Case
from tests.harness.dense_gpt import GPT, LENGTH, VOCABULARY, Attention, Block, GPTModule
from tests.harness.outcome import merged
from tests.harness.trainer import trainer
from tests.strategy.test_bring_your_own_model import Observer, Outcome

BATCH = 8


class NoisyAttention(Attention):
    """Drops of what is gathered, so whole on each rank; of the heads, of which a rank has some; and, by a function of
    torch, of the shard of the sequence that it returns."""

    def __init__(self) -> None:
        super().__init__()
        self.of_whole, self.of_heads = nn.Dropout(0.4), nn.Dropout(0.4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.of_whole(x)
        heads = (linear(x).unflatten(-1, (-1, 8)).transpose(1, 2) for linear in (self.query, self.key, self.value))
        mixed = F.scaled_dot_product_attention(*heads, is_causal=True, dropout_p=0.2 * self.training)
        return F.dropout(self.out(self.of_heads(mixed).transpose(1, 2).flatten(2)), 0.3, self.training)


class NoisyBlock(Block):
    def __init__(self) -> None:
        super().__init__()
        self.attention, self.of_stream = NoisyAttention(), nn.Dropout1d(0.3)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.of_stream(self.attention(self.attention_norm(x)))
        return x + self.of_stream(self.down(F.gelu(self.up(self.mlp_norm(x)))))


class NoisyGPT(GPT):
    def __init__(self, part: Part) -> None:
        super().__init__(part.layers, part.first, part.last)
        self.layers = nn.ModuleDict({str(layer): NoisyBlock() for layer in part.layers})


class NoisyModule(GPTModule):
    def build_part(self, part: Part) -> NoisyGPT:
        return NoisyGPT(part)


def loader(case: Case, rank: int, steps: int, first: int = 0) -> DataLoader:
    text = torch.randint(0, VOCABULARY, (steps, BATCH, LENGTH + 1), generator=torch.Generator().manual_seed(1))
    share = BATCH // case.layout.dp
    mine = slice(case.layout.coordinates(rank).dp * share, (case.layout.coordinates(rank).dp + 1) * share)
    batches = [
        {"tokens": b[mine, :-1].contiguous(), "targets": b[mine, 1:].contiguous()}
        for b in (*text[first:], *text[:first])
    ]
    return DataLoader(batches, batch_size=None)  # type: ignore[arg-type]


# -- recomputation ------------------------------------------------------------------------------------------------


def fit(rank: int, world_size: int, case: Case) -> Outcome:
    L.seed_everything(7, verbose=False)
    observer = Observer()
    engine = trainer(rank, world_size, case, max_steps=2, accumulate_grad_batches=2, callbacks=[observer])
    engine.fit(NoisyModule(), loader(case, rank, 4))
    return replace(observer.outcome, norms=[])


LAYOUTS = {
    "one rank": ParallelLayout(microbatches=2),
    "pp2 x dp2 x tp2": ParallelLayout(pp=2, dp=2, tp=2, microbatches=4),
    "shards over replicas": ParallelLayout(dp=2, tp=2, microbatches=2, dp_mode="shard"),
}


@pytest.mark.parametrize("mode", ["selective", "full"])
@pytest.mark.parametrize("name", LAYOUTS)
def test_recomputation_has_the_masks_of_the_forward(ranks: Any, name: str, mode: str) -> None:
    layout = LAYOUTS[name]
    case = Case(layout, precision="64-true")
    plain = ranks.once(("masks", name), lambda: merged(ranks.run(layout.world_size, fit, case)))
    found = merged(ranks.run(layout.world_size, fit, replace(case, layout=replace(layout, recompute=mode))))
    assert found.losses == pytest.approx(plain.losses, rel=1e-12)
    for weight, gradient in plain.gradients.items():
        torch.testing.assert_close(found.gradients[weight], gradient, rtol=1e-10, atol=1e-13)


# -- masks --------------------------------------------------------------------------------------------------------


class Masks(L.Callback):
    """What each dropout module dropped, call by call."""

    def __init__(self) -> None:
        self.of: dict[str, list[Tensor]] = defaultdict(list)

    def on_train_start(self, trainer: L.Trainer, module: Any) -> None:
        for part in module.parts:
            for name, dropout in part.named_modules():
                if isinstance(dropout, nn.Dropout | nn.Dropout1d):
                    dropout.register_forward_hook(
                        lambda module, args, output, name=name: self.of[name].append(local_tensor(output) == 0)
                    )


def masks(rank: int, world_size: int, case: Case) -> dict[str, list[Tensor]]:
    L.seed_everything(7, verbose=False)
    noted = Masks()
    engine = trainer(rank, world_size, case, max_steps=2, callbacks=[noted])
    engine.fit(NoisyModule(), loader(case, rank, 2))
    return dict(noted.of)


def alike(one: list[Tensor], other: list[Tensor]) -> list[bool]:
    return [torch.equal(*pair) for pair in zip(one, other, strict=True)]


@pytest.mark.parametrize("recompute", ["none", "full"])
def test_masks_are_alike_where_ranks_hold_the_same_activation_and_nowhere_else(ranks: Any, recompute: str) -> None:
    layout = ParallelLayout(dp=2, tp=2, microbatches=2, recompute=recompute)
    found = ranks.run(4, masks, Case(layout))
    for name in found[0]:
        for replica in (0, 2):  # the two ranks of tp
            assert alike(found[replica][name], found[replica + 1][name]) == [name.endswith("of_whole")] * len(
                found[0][name]
            ), name
        assert not any(alike(found[0][name], found[2][name])), name  # replicas of the weights have other data


def test_no_two_microbatches_layers_or_steps_have_the_same_mask(ranks: Any) -> None:
    found = ranks.run(2, masks, Case(ParallelLayout(tp=2, microbatches=2)))[0]
    calls = {name: tuple(mask) for name, mask in found.items()}
    for kind in ("of_whole", "of_heads", "of_stream"):
        seen = [mask for name, of_name in calls.items() if name.endswith(kind) for mask in of_name]
        assert len({mask.numpy().tobytes() for mask in seen}) == len(seen), kind


def test_a_mask_is_drawn_from_the_seed(ranks: Any) -> None:
    case = Case(ParallelLayout(tp=2, microbatches=2))
    once, again = (ranks.run(2, masks, case)[1] for _ in range(2))
    assert all(all(alike(once[name], again[name])) for name in once)


def numbers_after(rank: int, world_size: int, case: Case, build: type[GPTModule]) -> Tensor:
    L.seed_everything(7, verbose=False)
    engine = trainer(rank, world_size, case, max_steps=2)
    engine.fit(build(), loader(case, rank, 2))
    return torch.rand(4)


def test_masks_leave_the_random_numbers_of_others_as_they_are(ranks: Any) -> None:
    case = Case(ParallelLayout(tp=2, microbatches=2, recompute="full"))
    plain, noisy = (ranks.run(2, numbers_after, case, build) for build in (GPTModule, NoisyModule))
    assert all(torch.equal(one, plain[0]) for one in (*plain, *noisy))


# -- a resumed run ------------------------------------------------------------------------------------------------


def resumed(rank: int, world_size: int, case: Case, path: Path) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Final weights of four steps in one go, and of two and two more."""
    finals = []
    for steps, start in ((4, None), (2, None), (4, path)):
        L.seed_everything(7, verbose=False)
        observer = Observer()
        engine = trainer(rank, world_size, case, max_steps=steps, callbacks=[observer])
        engine.fit(NoisyModule(), loader(case, rank, 4, 2 if start else 0), ckpt_path=start)
        if steps == 2:
            engine.save_checkpoint(path)
        finals.append(observer.outcome.final)
    return finals[0], finals[2]


def test_a_resumed_run_draws_what_the_run_before_would_have_drawn(ranks: Any, tmp_path: Path) -> None:
    layout = ParallelLayout(pp=2, tp=2, microbatches=2, recompute="full")
    for straight, in_two in ranks.run(4, resumed, Case(layout), tmp_path / "half"):
        assert all(torch.equal(straight[name], in_two[name]) for name in straight)


@pytest.mark.filterwarnings("ignore")
def test_every_module_of_torch_s_that_draws_for_its_input_is_known() -> None:
    drawing = set()
    for kind in (each for each in vars(nn).values() if isinstance(each, type) and issubclass(each, nn.Module)):
        for shape in ((4, 6, 8), (2, 4, 6, 8), (2, 4, 6, 8, 8)):
            x = torch.randn(shape)
            try:
                module = kind().train()
                if not torch.equal(module(x), module(x)):
                    drawing.add(kind)
            except (TypeError, ValueError, RuntimeError, NotImplementedError, AttributeError, AssertionError):
                continue  # one that needs arguments, or another input
    assert {nn.Dropout, nn.RReLU} <= drawing
    assert drawing <= set(DROPOUT)
