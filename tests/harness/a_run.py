"""A run of two steps on four ranks, its folder, and the folder that transformers opens."""

from dataclasses import asdict, dataclass, replace
from pathlib import Path

from torch import Tensor

from project.data.tokenizer import train_tokenizer
from project.spec.layout import ParallelLayout
from project.state.weights.conversion import to_hf
from project.state.weights.source import open_weights
from project.strategy.hybrid import HybridParallelStrategy
from tests.harness.case import Case
from tests.harness.of_transformers import CONFIG
from tests.harness.outcome import merged
from tests.harness.ranks import RankPools
from tests.harness.saving import Ending, run

TEXTS = ["def f(x):\n    return x + 1\n", "hello world, wörld €\n"]
CASE = Case(ParallelLayout(pp=2, tp=2, ep=2, microbatches=2), replace(CONFIG, vocab_size=320, init_std=0.2), steps=2)


@dataclass(frozen=True)
class Run:
    folder: Path
    tensors: dict[str, Tensor]
    """Weights and buffers at the end, by global name."""


def on_a_rank(rank: int, world_size: int, case: Case, folder: Path) -> Ending:
    strategy = HybridParallelStrategy(case.layout, case.precision, run_config={"model": asdict(case.model)})
    return run(rank, world_size, case, folder, strategy=strategy)


def train(folder: Path, ranks: RankPools, case: Case = CASE) -> Run:
    train_tokenizer(TEXTS * 50, 300).save(str(folder / "tokenizer.json"))
    tensors = merged(ranks.run(4, on_a_rank, case, folder / "checkpoints")).tensors
    return Run(folder, {name: tensor for name, tensor in tensors.items() if not name.startswith("optimizer.")})


def export(run: Run, folder: Path) -> Path:
    """Exports the run's weights for `transformers`, in several files."""
    to_hf(open_weights(run.folder), folder, lambda done, total: None, shard_bytes=100_000)
    assert len(list(folder.glob("*.safetensors"))) > 2
    return folder
