"""Measured runs of others (`published_runs.csv`) as workloads and layouts that the planner can time.

What a source does not say is left to the planner: it takes the fastest of all microbatch sizes, virtual stages and
modes of recomputation that fit the memory. Nothing here is a rate, and nothing knows a row by its name: all that tells
one from another is in a column.
"""

import csv
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from benchmarks.footprint import footprint
from project.planner.cost.step_time import step_time
from project.planner.cost.workload import Workload
from project.planner.machine.cluster import Cluster
from project.spec.layer.implementation import Implementation
from project.spec.layout import ParallelLayout
from project.spec.legality.rule import divisors
from project.spec.model import ModelConfig

TABLE = Path(__file__).with_name("published_runs.csv")
RECOMPUTE = {"full": "full", "selective+sp": "selective", "norm+act": "selective", "none": "none"}
# fp16 weights and gradients, fp32 master weights and moments on every replica. Narayanan et al., arXiv 2104.04473.
MEGATRON_2021 = Implementation(
    "Megatron-LM 2021", gated=False, dropout=True, fused_attention=False, sequence_parallel=False
)
# The same with the sequence cut between the matrices. Korthikanti et al., arXiv 2205.05198.
MEGATRON_2022_SP = Implementation("Megatron-LM 2022", gated=False, dropout=True, fused_attention=False)
# Fused attention, the optimizer's state divided over the replicas, their sums hidden behind the backward, each expert's
# matrix products launched one by one. Liu et al., arXiv 2504.14960.
MEGATRON_CORE = Implementation(
    "Megatron-Core 2024",
    selective="kernels",
    slices="gathered",
    per_expert=4,
    state_bytes=6,
    sharded_state_bytes=12,
    gradient_bytes=4,
    overlaps_gradients=True,
    overlaps_messages=True,
)
# With DeepEP's dispatch. github.com/yanring/Megatron-MoE-ModelZoo, best_practice/Qwen3.
MEGATRON_CORE_DEEPEP = replace(MEGATRON_CORE, name="Megatron-Core 2025, DeepEP", sends_once=True)

TRAINERS = {how.name: how for how in (MEGATRON_2021, MEGATRON_2022_SP, MEGATRON_CORE, MEGATRON_CORE_DEEPEP)}


@dataclass(frozen=True)
class Run:
    """One row. `options` are all that it may have been; of a row that says everything there is one."""

    row: dict[str, str]
    work: Workload
    options: tuple[ParallelLayout, ...]

    @property
    def name(self) -> str:
        row = self.row
        split = f"tp{row['tp']} pp{row['pp']}" + (f" ep{row['ep']} etp{row['etp']}" if self.is_moe else "")
        return f"{row['model']}, {split}, {row['recompute']}"

    @property
    def is_moe(self) -> bool:
        return self.row["kind"] == "moe"

    @property
    def seconds(self) -> float:
        """As measured, or from what the source says of FLOP/s."""
        if self.row["step_time_s"]:
            return float(self.row["step_time_s"])
        peak = 989.5e12
        given = self.row["tflops_per_gpu"]
        rate = float(given) * 1e12 if given else float(self.row["mfu_percent"]) / 100 * peak
        return _claimed_flops(self.row, self.work) / (int(self.row["gpus"]) * rate)


class Predicted(NamedTuple):
    layout: ParallelLayout
    seconds: float
    memory: float


def runs() -> list[Run]:
    with TABLE.open(encoding="utf-8", newline="") as file:
        return [run_of(row) for row in csv.DictReader(file)]


def predict(run: Run, cluster: Cluster) -> Predicted:
    """The fastest that fits the memory."""
    found = []
    for layout in run.options:
        held = footprint(run.work, layout).total
        if len(run.options) == 1 or held <= cluster.usable_bytes:
            found.append(Predicted(layout, step_time(run.work, layout, cluster).total, held))
    return min(found, key=lambda option: option.seconds)


def run_of(row: dict[str, str]) -> Run:
    config = _config(row)
    work = Workload(config, int(row["global_batch"]), int(row["seq"]), TRAINERS[row["trainer"]])
    return Run(row, work, tuple(_options(row, config)))


def _config(row: dict[str, str]) -> ModelConfig:
    layers, dense = int(row["layers"]), row["kind"] == "dense"
    heads, width = int(row["heads"]), int(row["ffn"])
    return ModelConfig(
        num_layers=layers,
        num_dense_layers=layers if dense else 0,
        d_model=int(row["d_model"]),
        num_heads=heads,
        num_kv_heads=int(row["kv_heads"]),
        head_dim=int(row["d_model"]) // heads if dense else 128,
        d_ff=width,
        num_experts=1 if dense else int(row["experts"]),
        top_k=1 if dense else int(row["top_k"]),
        num_shared_experts=int(row["shared_ffn"]) // width,
        vocab_size=int(row["vocab"]),
    )


def _options(row: dict[str, str], config: ModelConfig) -> Iterator[ParallelLayout]:
    pp, tp, batch = int(row["pp"]), int(row["tp"]), int(row["global_batch"])
    dp = int(row["gpus"]) // (pp * tp)
    modes = [RECOMPUTE[row["recompute"]]] if row["recompute"] != "unstated" else ["none", "selective", "full"]
    for virtual in _virtual_stages(row, config, pp):
        for sequences in [int(row["micro_batch"])] if row["micro_batch"] else divisors(batch // dp):
            for recompute in modes:
                yield ParallelLayout(
                    pp=pp,
                    dp=dp,
                    tp=tp,
                    ep=int(row["ep"]),
                    etp=int(row["etp"]),
                    schedule="Interleaved1F1B" if virtual > 1 else "1F1B",
                    microbatches=batch // (dp * sequences),
                    virtual_stages=virtual,
                    recompute=recompute,
                    partition=_even(config.num_layers, pp * virtual),
                )


def _virtual_stages(row: dict[str, str], config: ModelConfig, pp: int) -> list[int]:
    if row["virtual_stages"]:
        return [int(row["virtual_stages"])]
    return [1] if pp == 1 else [v for v in divisors(config.num_layers) if config.num_layers % (pp * v) == 0]


def _even(layers: int, stages: int) -> tuple[int, ...]:
    """As Megatron cuts: evenly, and where that does not come out with less on the first and the last."""
    most = -(-layers // stages)
    sizes = [most] * stages
    for missing in range(most * stages - layers):
        sizes[(0, -1)[missing % 2]] -= 1
    return tuple(sizes)


def _claimed_flops(row: dict[str, str], work: Workload) -> float:
    """By the formula of the row's source, where it has FLOP/s but no seconds.

    Narayanan et al., eq. 3: with the recomputed forward. Megatron-Core in 2024: without, attention in full.
    """
    config, tokens = work.config, work.batch * work.seq_len
    h, layers, vocab = config.d_model, config.num_layers, config.vocab_size
    if row["kind"] == "dense":
        return 96 * tokens * layers * h * h * (1 + work.seq_len / (6 * h) + vocab / (16 * layers * h))
    heads, kv = config.num_heads * config.head_dim, config.num_kv_heads * config.head_dim
    active = 3 * h * (config.top_k + config.num_shared_experts) * config.d_ff + h * config.num_experts
    layer = 2 * (h * (2 * heads + 2 * kv) + active) + 4 * work.seq_len * heads
    return 3 * tokens * (layers * layer + 2 * h * vocab)
