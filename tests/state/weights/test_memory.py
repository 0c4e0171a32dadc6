"""Converting takes little memory, however large the model: below two of its largest tensors plus 500 MB."""

import sys
from pathlib import Path

import torch

from project.spec.cost import total_parameters
from project.spec.model import ModelConfig
from project.state.checkpoint.tensor_file import header
from project.state.weights.conversion import whole, write_json
from project.state.weights.families import their_name, to_config_json
from project.state.weights.weights import matrices
from tests.harness.command import run
from tests.harness.paths import ROOT

# Many layers, so that the whole is much larger than what is allowed.
CONFIG = ModelConfig(
    num_layers=27, d_model=512, num_heads=4, num_kv_heads=2, head_dim=32, d_ff=768, num_experts=4, vocab_size=1024
)
BYTES = 4
LARGEST = CONFIG.num_experts * CONFIG.d_model * CONFIG.d_ff * BYTES
ALLOWED = 2 * LARGEST + 500_000_000

# The peak of this process alone: a child's `ru_maxrss` begins with that of the parent that forked it.
CONVERT = """
import re, runpy, sys
sys.argv = sys.argv[1:]
try:
    runpy.run_path(sys.argv[0], run_name="__main__")
finally:
    print(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1])
"""


def peak(*arguments: str) -> int:
    """The peak of resident bytes, including mapped files."""
    command = [sys.executable, "-c", CONVERT, str(ROOT / "project" / "convert.py"), *arguments]
    return int(run(command=command, timeout=300).stdout.split()[-1]) * 1024


def hollow_mixtral(folder: Path) -> None:
    """Writes a model of zeros as a sparse file."""
    chunks = [whole(their_name(CONFIG, m.name, m.expert), torch.float32, m.shape) for m in matrices(CONFIG)]
    folder.mkdir()
    write_json(folder / "config.json", to_config_json(CONFIG, "float32", None))
    with (folder / "model.safetensors").open("wb") as file:
        size = file.write(header(chunks)) + sum(chunk.nbytes for chunk in chunks)
        file.truncate(size)


def test_converting_takes_less_memory_than_two_of_the_largest_tensors_plus_500_mb(tmp_path: Path) -> None:
    assert total_parameters(CONFIG) * BYTES > ALLOWED  # so that the whole would not pass
    hollow_mixtral(tmp_path / "hollow")
    assert peak("from_hf", str(tmp_path / "hollow"), str(tmp_path / "ckpt")) < ALLOWED
    assert peak("to_hf", str(tmp_path / "ckpt"), str(tmp_path / "hf")) < ALLOWED
