"""The planner against measurements of others: `make scoreboard` writes `planner_scoreboard.md`.

Every rate is read from configs/cluster/. `--fit` finds the few that were fitted, by coordinate descent from the assumed
values, and prints them; the table has, beside each row's error, the error of a fit that has not seen the row.
"""

import argparse
import dataclasses
import math
import subprocess
from collections.abc import Callable, Sequence
from datetime import date
from pathlib import Path
from statistics import mean

from benchmarks.footprint import layer_activation_bytes
from benchmarks.published_runs import MEGATRON_2021, MEGATRON_2022_SP, Predicted, Run, predict, runs
from project.planner.cost.workload import Workload, rank_parameters
from project.planner.machine.cluster import Cluster, Stated
from project.planner.machine.cluster_file import load_cluster
from project.spec.layout import ParallelLayout
from project.spec.model import ModelConfig
from project.spec.schedules.in_flight import share_in_flight

REPORT = Path(__file__).with_name("planner_scoreboard.md")
GIB = 2**30

# Korthikanti et al., Fig. 1, GiB: states; activations with tensor parallelism alone; with sequence parallelism and
# selective recomputation. Layers, width, heads, sequences, tp, pp, virtual stages.
MEMORY = {
    "22B": ((48, 6144, 64, 4, 8, 1, 1), (45.5625, 59.25, 9.5625)),
    "175B": ((96, 12288, 96, 1, 8, 8, 3), (45.5625, 66.84375, 12.3515625)),
    "530B": ((105, 20480, 128, 1, 8, 35, 3), (31.640625, 114.0234375, 23.076171875)),
    "1T": ((128, 25600, 160, 1, 8, 64, 1), (32.958984375, 131.25, 26.5625)),
}

# What is fitted, where the search starts, and between what it stays.
Constant = tuple[str, float, float, float]
FITTED: dict[str, tuple[Constant, ...]] = {
    "a100_8x": (("gemm", 0.80, 0.5, 0.9), ("inter", 0.80, 0.4, 0.95)),
    "h100_8x": (("gemm", 0.70, 0.5, 0.85), ("inter", 0.80, 0.4, 0.95), ("launch", 10e-6, 3e-6, 40e-6)),
}


def memory_row(model: str) -> tuple[float, float, float]:
    """GiB of the first stage, as in `MEMORY`."""
    layers, width, heads, sequences, tp, pp, virtual = MEMORY[model][0]
    config = ModelConfig(
        num_layers=layers,
        num_dense_layers=layers,
        d_model=width,
        num_heads=heads,
        num_kv_heads=heads,
        head_dim=width // heads,
        d_ff=4 * width,
        num_experts=1,
        top_k=1,
        vocab_size=0,  # the figure leaves embedding and head out
    )
    layout = ParallelLayout(
        pp=pp,
        tp=tp,
        schedule="Interleaved1F1B" if virtual > 1 else "1F1B",
        microbatches=8 * pp,
        virtual_stages=virtual,
        partition=(layers // (pp * virtual),) * (pp * virtual),
    )
    work = Workload(config, sequences * layout.microbatches, 2048, MEGATRON_2021)
    kept = [
        layers
        / pp
        * share_in_flight(layout, 0)
        * layer_activation_bytes(config, how, work.shape(layout), recompute, False)
        for how, recompute in ((MEGATRON_2021, "none"), (MEGATRON_2022_SP, "selective"))
    ]
    states = MEGATRON_2021.state_bytes * rank_parameters(work, layout)[0].divided_over_tp  # nor are norms in the figure
    return states / GIB, kept[0] / GIB, kept[1] / GIB


def clusters() -> dict[bool, str]:
    """Which file times a row: by whether it has experts."""
    return {False: "a100_8x", True: "h100_8x"}


def scores(kind: bool) -> list[tuple[Run, Predicted]]:
    cluster = load_cluster(clusters()[kind])
    return [(run, predict(run, cluster)) for run in runs() if run.is_moe == kind]


def error(run: Run, predicted: Predicted) -> float:
    return predicted.seconds / run.seconds - 1


def with_constants(cluster: Cluster, values: dict[str, float]) -> Cluster:
    achieved = dataclasses.replace(cluster.achieved, gemm=values["gemm"])
    inter = dataclasses.replace(cluster.inter, achieved=values["inter"])
    launch = values.get("launch", cluster.launch_s.value)
    stated = Stated(launch, min(launch, cluster.launch_s.low), max(launch, cluster.launch_s.high))
    return dataclasses.replace(cluster, achieved=achieved, inter=inter, launch_s=stated)


def fit(name: str, seen: Sequence[Run]) -> dict[str, float]:
    """The mean error, and a third of the worst."""
    cluster = load_cluster(name)

    def loss(values: dict[str, float]) -> float:
        changed = with_constants(cluster, values)
        errors = [abs(error(run, predict(run, changed))) for run in seen]
        return mean(errors) + max(errors) / 3

    return descend({constant[0]: constant[1] for constant in FITTED[name]}, FITTED[name], loss)


def descend(
    values: dict[str, float], constants: Sequence[Constant], loss: Callable[[dict[str, float]], float]
) -> dict[str, float]:
    best, step = loss(values), 0.2
    while step > 0.005:
        moved = False
        for constant, _, low, high in constants:
            for factor in (1 + step, 1 / (1 + step)):
                tried = {**values, constant: min(high, max(low, values[constant] * factor))}
                if (there := loss(tried)) < best - 1e-9:
                    values, best, moved = tried, there, True
        step = step if moved else step / 2
    return values


def left_out(kind: bool) -> list[float]:
    """The error of each row under constants fitted to the others."""
    name = clusters()[kind]
    every = [run for run in runs() if run.is_moe == kind]
    found = []
    for run in every:
        values = fit(name, [other for other in every if other is not run])
        found.append(error(run, predict(run, with_constants(load_cluster(name), values))))
    return found


def report() -> str:
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, cwd=REPORT.parent)
    lines = [
        "# The planner against measurements of others",
        "",
        f"Written by `make scoreboard` on {date.today()} at commit {commit.stdout.strip()}. The runs, with their",
        "sources, are in `published_runs.csv`; how each trainer computes is in `project/spec/layer/implementation.py`;",
        "every rate is in `configs/cluster/`, one file for all rows of a table. Errors are of the step's seconds.",
        "",
        "## Memory: Korthikanti et al., Fig. 1, GiB a GPU",
        "",
        "| model | states | tp | tp, sequence, selective | differs by |",
        "|---|---|---|---|---|",
    ]
    for model, (_, published) in MEMORY.items():
        ours = memory_row(model)
        apart = max(abs(mine - theirs) for mine, theirs in zip(ours, published, strict=True))
        lines.append(f"| {model} | {ours[0]:.4f} | {ours[1]:.4f} | {ours[2]:.4f} | {apart:.1e} |")
    for kind, title in ((False, "Dense, A100"), (True, "Mixtures of experts, H100")):
        lines += ["", f"## {title}: `configs/cluster/{clusters()[kind]}.yaml`", "", *table(kind)]
    return "\n".join(lines) + "\n"


def table(kind: bool) -> list[str]:
    found, unseen = scores(kind), left_out(kind)
    errors = [abs(error(*one)) for one in found]
    lines = [
        "| run | source | chosen by search | measured s | predicted s | error | error, row left out of the fit |",
        "|---|---|---|---|---|---|---|",
    ]
    for (run, predicted), apart in zip(found, unseen, strict=True):
        values = [f"{run.seconds:.2f}", f"{predicted.seconds:.2f}", f"{error(run, predicted):+.1%}", f"{apart:+.1%}"]
        lines.append(f"| {run.name} | {run.row['source']} | {chosen(run, predicted)} | {' | '.join(values)} |")
    fitted = ", ".join(constant[0] for constant in FITTED[clusters()[kind]])
    apart = [abs(value) for value in unseen]
    lines += [
        "",
        f"Mean error {mean(errors):.1%}, worst {max(errors):.1%}; with each row left out of the fit in turn, mean "
        f"{mean(apart):.1%}, worst {max(apart):.1%}.",
        f"Fitted: {len(FITTED[clusters()[kind]])} constants ({fitted}) to {len(found)} rows.",
    ]
    return lines


def chosen(run: Run, predicted: Predicted) -> str:
    if len(run.options) == 1:
        return "nothing"
    layout, work = predicted.layout, run.work
    sequences = work.shape(layout).sequences
    held = math.ceil(predicted.memory / GIB)
    return f"v={layout.virtual_stages}, microbatches of {sequences}, recompute {layout.recompute}; {held} GiB"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fit", action="store_true", help="print the fitted constants instead")
    if parser.parse_args().fit:
        for kind, name in clusters().items():
            print(name, fit(name, [run for run in runs() if run.is_moe == kind]))
        return
    REPORT.write_text(report(), encoding="utf-8")
    print(REPORT.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
