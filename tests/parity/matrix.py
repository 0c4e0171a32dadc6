"""A set of cases in which every two choices that can be made together are made together at least once (pairwise
testing): most faults need no more than two things to meet.

The candidates are drawn at random, from one seed, among what the legality check allows; the set is picked greedily,
preferring cheap ones. (allpairspy builds rows value by value, and cannot tell before a row is complete whether a layout
is legal: it would leave legal pairs out.)
"""

from dataclasses import replace
from functools import cache
from itertools import combinations
from random import Random
from typing import Any

from project.spec.layout import RECOMPUTE, ParallelLayout
from project.spec.legality.layouts import layout_faults
from project.spec.schedules.table import SCHEDULES
from tests.harness.case import SMALL, Case
from tests.harness.outcome import TOLERANCE

MOST_RANKS = 16
SEQ_LEN = 16

CHOICES: dict[str, tuple[Any, ...]] = {
    "pp": (1, 2, 4),
    "dp": (1, 2, 4),
    "tp": (1, 2, 4),
    "ep": (1, 2, 4, 8),
    "etp": (1, 2, 4),
    "dp_mode": ("replicate", "shard"),
    "schedule": tuple(SCHEDULES),
    "virtual_stages": (1, 2),
    "microbatches": (1, 2, 4, 8),
    "recompute": RECOMPUTE,
    "precision": tuple(TOLERANCE),
    "layers": ("even", "uneven", "by hand"),
    "accumulate": (1, 2),
    "masked": (False, True),
    "capacity": (None, 0.75, 1.5),
    "balance": ("auxiliary", "auxiliary per microbatch", "bias", "none"),
    "score": ("softmax", "sigmoid"),
    "z_coefficient": (0.0, 0.1),
    "shared": (0, 1, "gated"),
    "dense": (0, 1),
    "norm_top_k": (True, False),
    "qk_norm": (None, "head", "width"),
    "qkv_bias": (False, True),
    "kv_heads": (2, 4),
    "experts": ((4, 1), (4, 2), (8, 3), (8, 8)),
}
Choice = dict[str, Any]


def case(choice: Choice) -> Case:
    stages = choice["pp"] * choice["virtual_stages"]
    experts, top_k = choice["experts"]
    model = replace(
        SMALL,
        num_layers=stages if choice["layers"] == "even" else stages + 1,  # else the stages are uneven
        num_kv_heads=choice["kv_heads"],
        num_experts=experts,
        top_k=top_k,
        num_shared_experts=1 if choice["shared"] else 0,
        shared_gate=choice["shared"] == "gated",
        num_dense_layers=choice["dense"],
        norm_top_k=choice["norm_top_k"],
        qk_norm=choice["qk_norm"] is not None,
        qk_norm_over=choice["qk_norm"] or "head",
        qkv_bias=choice["qkv_bias"],
        score=choice["score"],
        expert_balance=choice["balance"].split()[0],
        auxiliary_per="microbatch" if "per microbatch" in choice["balance"] else "sequence",
        z_coefficient=choice["z_coefficient"],
        capacity_factor=choice["capacity"],
        capacity_group=4,
        # Near 1 / sqrt(d_model). With a tenth of it experts say next to nothing, and a router's gradient is what is
        # left of sums that cancel: rounding in fp32, on one rank as on many.
        init_std=0.18,
    )
    layout = ParallelLayout(
        **{key: choice[key] for key in ("pp", "dp", "tp", "ep", "etp", "dp_mode", "schedule", "virtual_stages")},
        microbatches=choice["microbatches"],
        recompute=choice["recompute"],
        partition=(1,) * (stages - 1) + (2,) if choice["layers"] == "by hand" else None,
    )
    # Microbatches of one shape: what DTensor works out for it serves all cases, and takes longer than to train one.
    batch = 2 * choice["dp"] * choice["microbatches"]
    given = {key: choice[key] for key in ("precision", "accumulate", "masked")}
    return Case(layout, model, batch=batch, seq_len=SEQ_LEN, **given)


def draw(random: Random) -> Choice:
    """Draws a legal combination of at most `MOST_RANKS` ranks."""
    while True:
        choice = {key: random.choice(values) for key, values in CHOICES.items()}
        drawn = case(choice)
        if ranks(choice) <= MOST_RANKS and not layout_faults(drawn.layout, drawn.model, drawn.batch, drawn.seq_len):
            return choice


def pairs(choice: Choice) -> set[tuple]:
    return set(combinations(choice.items(), 2))


def ranks(choice: Choice) -> int:
    return choice["pp"] * choice["dp"] * choice["tp"]


def cost(choice: Choice) -> float:
    """The rough cost of a run: each rank's start, and its share of the layers for each microbatch."""
    layers = choice["dp"] * choice["tp"] * choice["pp"] * choice["virtual_stages"]
    return 60 + 4 * ranks(choice) + layers * choice["microbatches"] * choice["accumulate"]


def pairwise(candidates: list[Choice]) -> list[Choice]:
    """Candidates that together have every pair of choices that any candidate has."""
    bits = {pair: 1 << bit for bit, pair in enumerate(sorted(set().union(*map(pairs, candidates)), key=repr))}
    pool = [(sum(bits[pair] for pair in pairs(choice)), cost(choice), choice) for choice in candidates]
    left, picked = sum(bits.values()), []
    while left:
        covered, _, choice = max(pool, key=lambda entry: (entry[0] & left).bit_count() / entry[1])
        picked.append(choice)
        left &= ~covered
    return picked


@cache
def matrix(cases: int) -> list[Choice]:
    """Cases for every pair, then random ones up to `cases`, each the cheapest of eight draws."""
    random = Random(0)
    picked = pairwise([draw(random) for _ in range(4000)])
    return picked + [min((draw(random) for _ in range(8)), key=cost) for _ in range(cases - len(picked))]
