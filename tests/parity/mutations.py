"""Puts known bugs of other systems into a copy of the project, one at a time, and names the tests that notice.

python tests/parity/mutations.py            all of them; some minutes each
python tests/parity/mutations.py norm       those whose description holds the word
"""

import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

from tests.harness.paths import ROOT

PARITY = ("tests/parity/test_edges.py", "tests/parity/test_layouts.py", "tests/parity/test_matrix.py")


class Mutation(NamedTuple):
    """A bug: in `file`, `sound` becomes `broken`; `tests` are run until one fails."""

    bug: str
    file: str
    sound: str
    broken: str
    tests: tuple[str, ...] = PARITY


MUTATIONS = (
    Mutation(
        "expert gradients divided by edp",
        "project/engine/gradients.py",
        "    sum_over_axes((grad, mesh.data_axis(grad.device_mesh)) for grad in whole)",
        "    whole = list(whole)\n"
        "    sum_over_axes((grad, mesh.data_axis(grad.device_mesh)) for grad in whole)\n"
        "    for grad in whole:\n"
        "        if grad.ndim == 3:\n"
        "            grad.to_local().div_(mesh.edp.size())",
    ),
    Mutation(
        "expert gradients of replicas not added up",
        "project/engine/gradients.py",
        "for grad in whole)\n\n\ndef gradients",
        "for grad in whole if grad.ndim < 3)\n\n\ndef gradients",
    ),
    Mutation(
        "router gradients not reduced over tp",
        "project/engine/gradients.py",
        "sum_over_axes((grad, cast(DTensor, parameter).device_mesh) for parameter, grad in partial)",
        "sum_over_axes((grad, cast(DTensor, p).device_mesh) for p, grad in partial if grad.ndim == 1)",
    ),
    Mutation(
        "norm without experts",
        "project/engine/gradients.py",
        "    for _, grad in gradients(parameters):\n        shares",
        "    for _, grad in gradients(parameters):\n        if grad.ndim == 3:\n            continue\n        shares",
    ),
    Mutation(
        "replicated parameters counted once a rank in the norm",
        "project/engine/gradients.py",
        "norms(grads)).double().square().sum() / ranks",
        "norms(grads)).double().square().sum()",
    ),
    Mutation(
        "auxiliary loss scaled by tp",
        "project/training/module.py",
        'Balancing(penalty_scale=self.strategy.penalty_scale(batch["targets"]))',
        'Balancing(penalty_scale=self.strategy.penalty_scale(batch["targets"]) * self.strategy.layout.tp)',
    ),
    Mutation(
        "auxiliary loss not divided by the accumulated batches",
        "project/training/module.py",
        'Balancing(penalty_scale=self.strategy.penalty_scale(batch["targets"]))',
        'Balancing(penalty_scale=self.strategy.penalty_scale(batch["targets"]) * self.trainer.accumulate_grad_batches)',
    ),
    Mutation(
        "recomputation routes again",
        "project/engine/recompute.py",
        "CHOICE = {torch.ops.aten.topk.default}",
        "CHOICE: set = set()",
        ("tests/engine/test_recompute.py", *PARITY),
    ),
    Mutation(
        "a schedule that scales the gradients at every accumulated batch (scale_grads)",
        "project/engine/stage.py",
        'of which an optimizer step may accumulate several."""\n',
        'of which an optimizer step may accumulate several."""\n        self.scale_grads(2)\n',
    ),
    Mutation(
        "gradients of sharded replicas averaged although the loss is divided already",
        "project/engine/sharded_replicas.py",
        "        sharded.set_gradient_divide_factor(1.0)\n",
        "        sharded.set_gradient_divide_factor(float(mesh.dp.size()))\n",
    ),
    Mutation(
        "a slice of an expert gets the whole weight's row twice",
        "project/engine/dispatch.py",
        "((rank.unsqueeze(-1) + slice_S)",
        "((rank.unsqueeze(-1) + 0 * slice_S)",
    ),
    Mutation(
        "capacity counted per rank instead of per group",
        "project/model/moe.py",
        "Capacity(config.num_experts, config.capacity_factor, config.capacity_group)",
        "Capacity(config.num_experts, config.capacity_factor, 2 * config.capacity_group)",
    ),
    Mutation(
        "a norm over divided heads whose sum of squares passes on one rank's gradient",
        "project/engine/collectives.py",
        "return sum_over_ranks(grad.contiguous(), ctx.group), None",
        "return grad.contiguous(), None",
        ("tests/parity/test_families.py", *PARITY),
    ),
    Mutation(
        "a shared expert's gate whose gradient is not reduced over tp",
        "project/engine/gradients.py",
        "sum_over_axes((grad, cast(DTensor, parameter).device_mesh) for parameter, grad in partial)",
        "sum_over_axes((grad, cast(DTensor, p).device_mesh) for p, grad in partial if len(p) != 1)",
        ("tests/parity/test_families.py", *PARITY),
    ),
)


def main(word: str = "") -> None:
    for mutation in MUTATIONS:
        if word in mutation.bug:
            print(f"| {mutation.bug} | {noticed(mutation)} |", flush=True)


def noticed(mutation: Mutation) -> str:
    """The first test that fails."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "project"
        shutil.copytree(
            ROOT, copy, ignore=shutil.ignore_patterns(".git", ".venv*", "outputs", ".*_cache", "*.egg-info")
        )
        file = copy / mutation.file
        text = file.read_text()
        assert text.count(mutation.sound) == 1, f"{mutation.file} has changed: {mutation.bug}"
        file.write_text(text.replace(mutation.sound, mutation.broken))
        command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *mutation.tests]
        # The copy's package comes before the installed one.
        result = subprocess.run(command, cwd=copy, env={"PYTHONPATH": str(copy)}, capture_output=True, text=True)
    failed = re.search(r"^FAILED (.+?)(?: - |$)", result.stdout, re.MULTILINE)
    return f"`{failed[1]}`" if failed else f"NOT NOTICED (status {result.returncode})"


if __name__ == "__main__":
    main(*sys.argv[1:])
