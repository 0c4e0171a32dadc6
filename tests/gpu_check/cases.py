"""What `make gpu-check` trains: every dispatch, precision and mode of replicas together, over them every schedule and
every recomputation; other parts of a model; one rank; accumulated batches; a resumed run."""

from itertools import product
from typing import NamedTuple

from project.spec.layout import RECOMPUTE
from project.spec.schedules.table import SCHEDULES

SIZE = [
    "model=tiny",
    "model.num_layers=4",
    "model.d_ff=64",
    "model.vocab_size=128",
    "data=synthetic",
    "data.num_tokens=20000",
    "data.seq_len=32",
    "data.batch_size=8",
    "trainer.max_steps=2",
    "trainer.val_check_interval=1",
    "trainer.limit_val_batches=2",
    "callbacks.checkpoint.every_n_train_steps=1",
    "logger=csv",
]
DISPATCHES = {"dropless": "capacity_factor=null", "capacity": "capacity_factor=1.0 capacity_group=8"}
PRECISIONS = ("32-true", "bf16-mixed", "16-mixed")
LAYOUTS = {"replicate": "pp=2 tp=2 ep=2", "shard": "pp=2 dp=2 ep=2"}
TOGETHER = "pp=2 dp=2 tp=2 ep=2"
OTHER_MODEL = "num_dense_layers=1 num_shared_experts=1 score=sigmoid expert_balance=bias z_coefficient=0.001"


class Case(NamedTuple):
    name: str
    overrides: list[str]


def case(name: str, layout: str, model: str = "", trainer: str = "") -> Case:
    """Each text has a section's keys with their values."""
    sections = {"parallel": layout, "model": model, "trainer": trainer}
    chosen = [f"{section}.{choice}" for section, choices in sections.items() for choice in choices.split()]
    return Case(name, [*SIZE, *chosen])


def combination(number: int, dispatch: str, precision: str, mode: str) -> Case:
    """Schedules go round, and when all were there recomputations. Every fifth has replicas and tensor-parallel ranks at
    once."""
    schedule = list(SCHEDULES.values())[number % len(SCHEDULES)]
    recompute = RECOMPUTE[max(0, number - len(SCHEDULES) + 1) % len(RECOMPUTE)]
    ranks = TOGETHER if number % 5 == 4 else LAYOUTS[mode]
    stages = schedule.stages_a_rank or (1 if schedule.with_one_stage is None else 2)
    how = f"schedule={schedule.name} virtual_stages={stages} microbatches=4 dp_mode={mode} recompute={recompute}"
    name = f"{schedule.name}, {dispatch}, {precision}, {mode}, {ranks}, recompute {recompute}"
    return case(name, f"{ranks} {how}", DISPATCHES[dispatch], f"precision={precision}")


CASES = [
    *(combination(number, *choice) for number, choice in enumerate(product(DISPATCHES, PRECISIONS, LAYOUTS))),
    case("one rank", "microbatches=2"),
    case("accumulated batches", LAYOUTS["replicate"], trainer="accumulate_grad_batches=2"),
    case("another model, sliced experts", "pp=2 tp=2 etp=2 microbatches=4", OTHER_MODEL, "precision=bf16-true"),
]
RESUMED = case("resumed", f"{LAYOUTS['shard']} dp_mode=shard microbatches=4", trainer="precision=16-mixed")
"""Trained, and then a step further from its checkpoint."""
