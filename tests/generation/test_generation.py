"""A text is continued the same under every layout, and as `transformers` continues it."""

from pathlib import Path
from typing import Any

import pytest
import torch

from project.generation.module import Generator, Sampling, prompts
from project.spec.layout import ParallelLayout
from project.state.weights.source import open_weights
from tests.harness.a_run import Run
from tests.harness.case import Case
from tests.harness.of_transformers import transformers
from tests.harness.ranks import RankPools
from tests.harness.trainer import trainer

LAYOUTS = {
    "one rank": ParallelLayout(schedule="GPipe"),
    "tp2 x ep2 x pp2": ParallelLayout(pp=2, tp=2, ep=2, schedule="GPipe"),
    "experts over replicas": ParallelLayout(dp=2, tp=2, ep=4, dp_mode="shard", schedule="GPipe"),
    "virtual stages": ParallelLayout(schedule="Interleaved1F1B", virtual_stages=2),
}
PROMPT = [7, 100, 31, 5, 200]
GREEDY, NEVER = Sampling(temperature=0), -1


def continued(
    rank: int, world_size: int, layout: ParallelLayout, source: Path, sampling: Sampling, end: int, samples: int
) -> list[list[int]]:
    module = Generator(open_weights(source), sampling, max_new_tokens=12, end=end)
    (rows,) = trainer(rank, world_size, Case(layout, module.config)).predict(module, prompts(PROMPT, samples))
    return rows


def on_all(
    ranks: RankPools, layout: ParallelLayout, source: Path, sampling: Sampling, end: int = NEVER, samples: int = 2
) -> list[list[int]]:
    answers = ranks.run(layout.world_size, continued, layout, source, sampling, end, samples)
    assert all(answer == answers[0] for answer in answers)
    return answers[0]


@pytest.fixture(scope="module")
def theirs(exported: Path) -> list[int]:
    model: Any = transformers.MixtralForCausalLM.from_pretrained(exported)
    model.generation_config.eos_token_id = None
    (row,) = model.generate(torch.tensor([PROMPT]), max_new_tokens=12, do_sample=False)
    return row[len(PROMPT) :].tolist()


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_greedy_generation_equals_transformers_with_the_exported_weights(
    layout: ParallelLayout, theirs: list[int], a_run: Run, exported: Path, ranks: RankPools
) -> None:
    assert len(set(theirs)) > 3
    assert on_all(ranks, layout, exported, GREEDY) == [theirs, theirs]
    assert on_all(ranks, layout, a_run.folder, GREEDY, samples=1) == [theirs]


def test_a_seed_generates_the_same_samples_under_every_layout(a_run: Run, ranks: RankPools) -> None:
    drawn = [on_all(ranks, layout, a_run.folder, Sampling(1.0, None, seed=3)) for layout in LAYOUTS.values()]
    assert all(rows == drawn[0] for rows in drawn)
    assert drawn[0][0] != drawn[0][1]
    assert on_all(ranks, LAYOUTS["one rank"], a_run.folder, Sampling(1.0, None, seed=4)) != drawn[0]


def test_generation_stops_where_all_samples_have_ended(theirs: list[int], a_run: Run, ranks: RankPools) -> None:
    end = theirs[4]
    assert on_all(ranks, LAYOUTS["tp2 x ep2 x pp2"], a_run.folder, GREEDY, end) == [theirs[: theirs.index(end) + 1]] * 2
