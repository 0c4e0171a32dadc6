"""The table of rules against the same rules written out a second time, and the values it offers against itself."""

import dataclasses
import re
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from project.fault import Fault
from project.model.config import ModelConfig
from project.parallel.layout import ParallelLayout
from project.parallel.legality import layout_faults, legal_layouts

SIZES = st.sampled_from([1, 2, 3, 4, 6, 8])
LAYOUTS = st.builds(
    ParallelLayout,
    pp=SIZES,
    dp=st.sampled_from([1, 1, 1, 2]),
    tp=SIZES,
    ep=SIZES,
    etp=st.sampled_from([1, 1, 1, 2]),
    schedule=st.sampled_from(["1F1B", "GPipe", "gpipe"]),
    microbatches=st.sampled_from([1, 2, 4, 5, 8]),
    virtual_stages=st.sampled_from([1, 1, 1, 2]),
    partition=st.none() | st.lists(st.integers(0, 4), min_size=1, max_size=4).map(tuple),
)
MODELS = st.builds(
    ModelConfig,
    num_layers=st.integers(1, 8),
    d_model=st.sampled_from([48, 50, 64]),
    num_heads=st.sampled_from([4, 6, 8]),
    num_kv_heads=st.sampled_from([1, 2, 3, 4, 8]),
    head_dim=st.sampled_from([7, 8, 16]),
    d_ff=st.sampled_from([96, 128]),
    num_experts=SIZES,
    top_k=st.integers(1, 4),
    vocab_size=st.sampled_from([257, 1024, 1536]),
    max_seq_len=st.sampled_from([32, 4096]),
    score=st.sampled_from(["softmax", "sigmoid", "soft"]),
)
BATCHES = st.sampled_from([1, 4, 6, 8, 16])
LENGTHS = st.sampled_from([24, 32, 64])


def is_legal(layout: ParallelLayout, model: ModelConfig, batch_size: int, seq_len: int) -> bool:
    pp, tp, microbatches = layout.pp, layout.tp, layout.microbatches
    split = [model.num_heads, model.num_kv_heads, seq_len, model.d_model, model.d_ff, model.vocab_size]
    parts = layout.partition
    return (
        all(size % tp == 0 for size in split)
        and layout.dp == layout.etp == layout.virtual_stages == 1
        and (layout.ep == 1 or (layout.ep == tp and model.num_experts % tp == 0))
        and pp <= model.num_layers
        and batch_size % microbatches == 0
        and (layout.schedule == "GPipe" or (layout.schedule == "1F1B" and microbatches >= pp))
        and (parts is None or (len(parts) == pp and sum(parts) == model.num_layers and 0 not in parts))
        and model.top_k <= model.num_experts
        and model.num_heads % model.num_kv_heads == 0
        and model.head_dim % 2 == 0
        and seq_len <= model.max_seq_len
        and model.score in ("softmax", "sigmoid")
    )


@settings(max_examples=1000, deadline=None)
@given(LAYOUTS, MODELS, BATCHES, LENGTHS)
def test_no_fault_is_found_exactly_where_all_rules_hold(
    layout: ParallelLayout, model: ModelConfig, batch_size: int, seq_len: int
) -> None:
    faults = layout_faults(layout, model, batch_size, seq_len)
    assert (not faults) == is_legal(layout, model, batch_size, seq_len)
    assert len({fault.key for fault in faults}) == len(faults)


@settings(max_examples=300, deadline=None)
@given(LAYOUTS, MODELS, BATCHES, LENGTHS)
def test_every_value_that_a_fault_offers_mends_it(
    layout: ParallelLayout, model: ModelConfig, batch_size: int, seq_len: int
) -> None:
    setting = (layout, model, batch_size, seq_len)
    for fault in layout_faults(*setting):
        for value in offered(fault):
            mended = layout_faults(*changed(setting, fault.key, value))
            assert fault.key not in {left.key for left in mended}, f"{fault} is not mended by {value}"


@settings(max_examples=30, deadline=None)
@given(MODELS, st.sampled_from([1, 2, 4, 8, 16]), BATCHES, LENGTHS)
def test_the_layouts_that_are_offered_are_all_that_are_legal(
    model: ModelConfig, world_size: int, batch_size: int, seq_len: int
) -> None:
    degrees = [1, 2, 4, 8, 16]
    found = {(layout.pp, layout.tp, layout.ep) for layout in legal_layouts(model, world_size, batch_size, seq_len)}
    expected = {
        (pp, tp, ep)
        for pp in degrees
        for tp in degrees
        for ep in degrees
        if pp * tp == world_size
        and any(
            is_legal(ParallelLayout(pp=pp, tp=tp, ep=ep, microbatches=m), model, batch_size, seq_len)
            for m in (1, batch_size)
        )
    }
    assert found == expected


def test_the_reference_layout_is_offered_first_for_its_shape() -> None:
    layouts = legal_layouts(ModelConfig(), 16, batch_size=8, seq_len=256, like=ParallelLayout(microbatches=8))
    assert (layouts[0].pp, layouts[0].tp, layouts[0].ep, layouts[0].microbatches) == (4, 4, 4, 8)


def test_a_value_that_is_no_number_hides_no_other_fault() -> None:
    layout = ParallelLayout(tp="four", pp=99)  # type: ignore[arg-type]
    found = [fault.key for fault in layout_faults(layout, ModelConfig(), 8, 256)]
    assert sorted(found) == ["parallel.microbatches", "parallel.pp", "parallel.tp"]


def offered(fault: Fault) -> list[Any]:
    found = re.search(r"legal: ([^;]+)", fault.message), re.search(r"(?:nearest|for instance) (.+)$", fault.message)
    words = [word for match in found if match for word in re.split(r", | or ", match[1])]
    return [parsed(word) for word in words]


def parsed(word: str) -> Any:
    if word.startswith("["):
        return tuple(int(part) for part in word[1:-1].split(","))
    return None if word == "null" else int(word) if word.isdigit() else word


def changed(setting: tuple[Any, ...], key: str, value: Any) -> tuple[Any, ...]:
    layout, model, batch_size, seq_len = setting
    section, _, name = key.partition(".")
    if section == "parallel":
        return dataclasses.replace(layout, **{name: value}), model, batch_size, seq_len
    if section == "model":
        return layout, dataclasses.replace(model, **{name: value}), batch_size, seq_len
    return (layout, model, value, seq_len) if name == "batch_size" else (layout, model, batch_size, value)
