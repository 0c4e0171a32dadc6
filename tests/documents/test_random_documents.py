"""Documents written from random layouts, in several hands, are read back."""

import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from project.documents.reading import reading
from project.documents.settings import settings_of

LAYOUT = st.fixed_dictionaries(
    {
        "tp": st.sampled_from([1, 2, 4, 8]),
        "pp": st.integers(1, 16),
        "dp": st.integers(1, 64),
        "ep": st.sampled_from([1, 2, 4, 8]),
        "microbatches": st.integers(1, 512),
        "num_layers": st.integers(1, 128),
        "d_model": st.sampled_from([256, 1024, 12_288]),
        "d_ff": st.sampled_from([1024, 4096, 28_672]),
        "num_heads": st.integers(1, 128),
        "num_experts": st.integers(2, 256),
        "top_k": st.integers(1, 8),
        "vocab_size": st.integers(1000, 200_000),
        "seq_len": st.integers(16, 200_000),
        "batch_size": st.integers(1, 5000),
    }
)
NAMES = {
    "tp": "Tensor parallelism (TP)",
    "pp": "Pipeline parallelism (PP)",
    "dp": "Data parallelism (DP)",
    "ep": "Expert parallelism (EP)",
    "microbatches": "Microbatches",
    "num_layers": "Layers",
    "d_model": "d_model",
    "d_ff": "FFN hidden size",
    "num_heads": "Attention heads",
    "num_experts": "Experts",
    "top_k": "Top-k",
    "vocab_size": "Vocabulary size",
    "seq_len": "Sequence length",
    "batch_size": "Global batch size",
}


def table(layout: dict[str, int]) -> str:
    rows = [f"| {NAMES[key]} | {value:,} |" for key, value in layout.items()]
    return "\n".join(["# Plan", "", "| what | value |", "|---|---|", *rows])


def bold(layout: dict[str, int]) -> str:
    return "\n".join(f"- **{NAMES[key]}**: {value}" for key, value in layout.items())


def prose(layout: dict[str, int]) -> str:
    of = layout
    return (
        f"We train {of['num_layers']} layers of d_model {of['d_model']} with {of['num_heads']} attention heads, "
        f"{of['num_experts']} experts, top-{of['top_k']}, d_ff {of['d_ff']} and a vocabulary of {of['vocab_size']}.\n\n"
        f"Tensor parallelism is of degree {of['tp']}, pipeline parallelism of degree {of['pp']}, expert parallelism of "
        f"degree {of['ep']} and data parallelism of degree {of['dp']}. A global batch of {of['batch_size']} sequences, "
        f"sequence length {of['seq_len']:,}, runs as {of['microbatches']} microbatches.\n"
    )


def terse(layout: dict[str, int]) -> str:
    of = layout
    model = f"{of['num_layers']}L d{of['d_model']} {of['num_heads']}h ff{of['d_ff']} v{of['vocab_size']}"
    model += f" {of['num_experts']}e top{of['top_k']} seq {of['seq_len']} gbs {of['batch_size']}"
    return f"{model}\ntp{of['tp']} pp{of['pp']} dp{of['dp']} ep{of['ep']}, m={of['microbatches']}\n"


@settings(max_examples=200, deadline=None)
@given(LAYOUT, st.sampled_from([table, bold, prose, terse]))
def test_a_layout_that_was_written_down_is_read_back(layout: dict[str, int], hand: Any) -> None:
    read = reading(Path("x.md"), hand(layout))
    said = settings_of(read).said
    in_layout = ("tp", "pp", "dp", "ep", "microbatches")
    for key, value in layout.items():
        section = "parallel" if key in in_layout else "data" if key in ("seq_len", "batch_size") else "model"
        assert said.get(f"{section}.{key}") == value, (key, hand(layout))


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet=st.sampled_from(list("TPEDx=4% |-*#:.,GBs\n[]()<>~0123456789 abcdelmnoprtuy`")), max_size=400))
def test_any_text_is_read_without_an_error(text: str) -> None:
    settings_of(reading(Path("x.md"), text))


HOSTILE = ("= : is of ", "tensor parallel ", "latency ", "1 x 2 * 3 ", " ", "[", "**a* ", ">", "12 experts ")


@pytest.mark.parametrize("piece", HOSTILE)
def test_a_line_of_repeated_words_is_read_in_seconds(piece: str) -> None:
    """A pattern that tries every way to divide a line would not end in a lifetime."""
    began = time.monotonic()
    reading(Path("x.md"), "tensor parallelism " + piece * (4000 // len(piece)) + "x")
    assert time.monotonic() - began < 20
