"""The table of rules against the same rules written out a second time, and the values it offers against itself."""

import dataclasses
import itertools
import math
import re
from collections import Counter
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from project.spec.fault import Fault
from project.spec.layout import ParallelLayout
from project.spec.legality.layouts import layout_faults, legal_layouts, legal_microbatches, legal_schedules
from project.spec.model import ModelConfig
from project.spec.schedules.table import SCHEDULES

DEGREES = st.sampled_from([1, 1, 2, 4])
ANY_SIZE = st.sampled_from([1, 2, 3, 4, 6, 8])
Setting = tuple[ParallelLayout, ModelConfig, int, int]  # with the size of a batch and the length of a sequence


@st.composite
def legal_settings(draw: st.DrawFn) -> Setting:
    """Draws a setting whose sizes divide each other."""
    pp, dp, tp, ep, etp = (draw(DEGREES) for _ in range(5))
    schedule = draw(st.sampled_from([*SCHEDULES]))
    virtual_stages = SCHEDULES[schedule].stages_a_rank or draw(st.integers(1, 3))
    microbatches = pp * virtual_stages * draw(st.sampled_from([1, 2]))
    num_layers = 24
    dense = draw(st.sampled_from([0, 0, 2, num_layers]))
    together = dp * tp if dense < num_layers else 1
    layout = ParallelLayout(
        pp=pp,
        dp=dp,
        tp=tp,
        ep=math.gcd(ep, together),
        etp=math.gcd(etp, together // math.gcd(ep, together)),
        dp_mode=draw(st.sampled_from(["replicate", "shard"])),
        schedule=schedule,
        microbatches=microbatches,
        virtual_stages=virtual_stages,
        partition=draw(st.sampled_from([None, (num_layers // (pp * virtual_stages),) * (pp * virtual_stages)])),
    )
    model = ModelConfig(
        num_layers=num_layers,
        d_model=64,
        num_heads=8,
        num_kv_heads=4,
        head_dim=8,
        d_ff=128,
        num_experts=4,
        vocab_size=1024,
        num_dense_layers=dense,
        num_shared_experts=draw(st.sampled_from([0, 0, 1])),
        capacity_factor=draw(st.sampled_from([None, None, 1.25])),
        capacity_group=8,
    )
    return layout, model, dp * microbatches * draw(st.sampled_from([1, 3])), 64


CHANGES: dict[str, st.SearchStrategy[Any]] = {
    **{f"parallel.{degree}": ANY_SIZE for degree in ("pp", "dp", "tp", "ep", "etp")},
    "parallel.dp_mode": st.sampled_from(["replicate", "shard", "fsdp"]),
    "parallel.schedule": st.sampled_from([*SCHEDULES, "gpipe", "mine.csv"]),
    "parallel.microbatches": st.integers(1, 12),
    "parallel.virtual_stages": st.integers(1, 4),
    "parallel.recompute": st.sampled_from(["none", "selective", "full", "auto", "some"]),
    "parallel.partition": st.none() | st.lists(st.integers(0, 12), min_size=1, max_size=4).map(tuple),
    "model.num_layers": st.integers(1, 24),
    "model.d_model": st.sampled_from([48, 50, 63]),
    "model.num_heads": st.sampled_from([3, 4, 6]),
    "model.num_kv_heads": st.sampled_from([1, 2, 3, 8]),
    "model.head_dim": st.sampled_from([6, 7, 16]),
    "model.d_ff": st.sampled_from([96, 130, 129]),
    "model.num_experts": ANY_SIZE,
    "model.top_k": st.integers(1, 5),
    "model.vocab_size": st.sampled_from([257, 1026, 1536]),
    "model.max_seq_len": st.sampled_from([32, 64]),
    "model.num_shared_experts": st.integers(-1, 3),
    "model.num_dense_layers": st.integers(-1, 25),
    "model.score": st.sampled_from(["sigmoid", "soft"]),
    "model.shared_gate": st.just(True),
    "model.qkv_bias": st.just(True),
    "model.qk_norm": st.just(True),
    "model.qk_norm_over": st.sampled_from(["width", "heads"]),
    "model.expert_balance": st.sampled_from(["bias", "none", "loss"]),
    "model.auxiliary_per": st.sampled_from(["microbatch", "batch"]),
    "model.capacity_factor": st.sampled_from([None, 2, 0.5, 0, -1.0, math.inf]),
    "model.capacity_group": st.sampled_from([0, 1, 3, 16, 64]),
    "data.batch_size": st.integers(1, 24),
    "data.seq_len": st.sampled_from([24, 30, 32, 128]),
}


@st.composite
def any_settings(draw: st.DrawFn) -> Setting:
    """Draws a legal setting with up to three values changed; it may still be legal."""
    setting = draw(legal_settings())
    for key in draw(st.lists(st.sampled_from(sorted(CHANGES)), max_size=3)):
        setting = changed(setting, key, draw(CHANGES[key]))
    return setting


def is_legal(layout: ParallelLayout, model: ModelConfig, batch_size: int, seq_len: int) -> bool:
    return (
        model_is_sound(model, seq_len)
        and ranks_are_shared_out(layout, model, seq_len)
        and stages_have_layers(layout, model)
        and schedule_runs(layout)
        and batch_size % (layout.dp * layout.microbatches) == 0
        and (layout.dp_mode == "replicate" or (layout.dp_mode == "shard" and shards_are_even(layout, model)))
        and layout.recompute in ("none", "selective", "full", "auto")
    )


def model_is_sound(model: ModelConfig, seq_len: int) -> bool:
    return (
        model.top_k <= model.num_experts
        and model.num_heads % model.num_kv_heads == 0
        and model.head_dim % 2 == 0
        and seq_len <= model.max_seq_len
        and 0 <= model.num_dense_layers <= model.num_layers
        and model.num_shared_experts >= 0
        and (model.capacity_factor is None or 0 < model.capacity_factor < math.inf)
        and model.capacity_group >= 1
        and model.score in ("softmax", "sigmoid")
        and not (model.shared_gate and model.num_shared_experts == 0)
        and model.qk_norm_over in (("head", "width") if model.qk_norm else ("head",))
        and model.expert_balance in ("auxiliary", "bias", "none")
        and model.auxiliary_per in ("sequence", "microbatch")
    )


def ranks_are_shared_out(layout: ParallelLayout, model: ModelConfig, seq_len: int) -> bool:
    tp, ep, etp = layout.tp, layout.ep, layout.etp
    widths = [model.num_heads, model.num_kv_heads, seq_len, model.vocab_size]
    if model.num_dense_layers > 0:
        widths.append(model.dense_d_ff)
    if not model.moe_layers:
        return ep == etp == 1 and all(width % tp == 0 for width in widths)
    widths.append(model.num_shared_experts * model.d_ff)
    return (
        all(width % tp == 0 for width in widths)
        and layout.dp * tp % (ep * etp) == 0
        and model.num_experts % ep == 0
        and model.d_ff % etp == 0
        and (model.capacity_factor is None or seq_len // tp % model.capacity_group == 0)
    )


def stages_have_layers(layout: ParallelLayout, model: ModelConfig) -> bool:
    stages, parts = layout.pp * layout.virtual_stages, layout.partition
    by_hand = parts is None or (len(parts) == stages and sum(parts) == model.num_layers and 0 not in parts)
    return stages <= model.num_layers and by_hand


def schedule_runs(layout: ParallelLayout) -> bool:
    pp, virtual_stages, microbatches = layout.pp, layout.virtual_stages, layout.microbatches
    match layout.schedule:
        case "GPipe":
            return virtual_stages == 1
        case "1F1B":
            return virtual_stages == 1 and microbatches >= pp
        case "LoopedBFS":
            return True
        case "Interleaved1F1B" | "InterleavedZeroBubble":
            return microbatches % max(1, microbatches // pp) == 0
        case "ZBVZeroBubble" | "VHalf" | "VMin":
            return virtual_stages == 2
        case "DualPipeV":
            return virtual_stages == 2 and microbatches >= 2 * pp
    return layout.schedule.endswith(".csv")  # which is looked into elsewhere


def shards_are_even(layout: ParallelLayout, model: ModelConfig) -> bool:
    """For a layout that is legal without them. The first dims of one rank's matrices, and by what they are cut."""
    dp, tp, etp, edp = layout.dp, layout.tp, layout.etp, layout.edp
    heads, kv_heads = model.num_heads * model.head_dim, model.num_kv_heads * model.head_dim
    cuts = [(heads // tp, dp), (kv_heads // tp, dp), (model.d_model, dp), (model.vocab_size // tp, dp)]
    if model.qk_norm and model.qk_norm_over == "head":
        cuts.append((model.head_dim, dp))
    if model.num_dense_layers > 0:
        cuts.append((model.dense_d_ff // tp, dp))
    if model.moe_layers:
        cuts += [(model.num_shared_experts * model.d_ff // tp, dp), (model.d_ff // etp, edp), (model.d_model, edp)]
    return all(width % by == 0 for width, by in cuts)


def test_a_layout_has_no_fault_exactly_where_all_rules_hold() -> None:
    verdicts: Counter[bool] = Counter()

    @settings(max_examples=1000, deadline=None)
    @given(any_settings())
    def agree(setting: Setting) -> None:
        faults = layout_faults(*setting)
        verdicts[is_legal(*setting)] += 1
        assert (not faults) == is_legal(*setting)
        assert len({fault.key for fault in faults}) == len(faults)

    agree()
    assert min(verdicts[True], verdicts[False]) > 200


@settings(max_examples=100, deadline=None)
@given(legal_settings())
def test_layouts_drawn_to_divide_the_model_are_legal(setting: Setting) -> None:
    assert layout_faults(*setting) == []


@settings(max_examples=500, deadline=None)
@given(any_settings())
def test_every_value_that_a_fault_offers_mends_it(setting: Setting) -> None:
    for fault in layout_faults(*setting):
        for key, value in offered(fault):
            mended = layout_faults(*changed(setting, key, value))
            assert fault.key not in {left.key for left in mended}, f"{fault} is not mended by {key}={value}"


@settings(max_examples=60, deadline=None)
@given(any_settings(), st.sampled_from([1, 2, 3, 4, 8, 12, 16]))
def test_the_layouts_that_are_offered_are_all_that_are_legal(setting: Setting, world_size: int) -> None:
    like, model, batch_size, seq_len = setting
    found = legal_layouts(model, world_size, batch_size, seq_len, like=like)
    assert all(layout.world_size == world_size and is_legal(layout, model, batch_size, seq_len) for layout in found)
    expected = {
        (pp, dp, tp, ep, etp)
        for pp, dp, tp in itertools.product(range(1, world_size + 1), repeat=3)
        if pp * dp * tp == world_size
        for ep, etp in itertools.product(range(1, dp * tp + 1), repeat=2)
        if dp * tp % (ep * etp) == 0
        and any(
            is_legal(legal_for(like, (pp, dp, tp, ep, etp), microbatches), model, batch_size, seq_len)
            for microbatches in ([like.microbatches] if like.schedule == "mine.csv" else range(1, batch_size + 1))
            if pp == like.pp or like.schedule != "mine.csv"
        )
    }
    assert {(layout.pp, layout.dp, layout.tp, layout.ep, layout.etp) for layout in found} == expected


def legal_for(like: ParallelLayout, degrees: tuple[int, ...], microbatches: int) -> ParallelLayout:
    named = dict(zip(("pp", "dp", "tp", "ep", "etp"), degrees, strict=True))
    return dataclasses.replace(like, **named, microbatches=microbatches, partition=None)


def test_the_reference_layout_is_offered_first_for_its_shape() -> None:
    layouts = legal_layouts(ModelConfig(), 16, batch_size=8, seq_len=256, like=ParallelLayout(microbatches=8))
    assert (layouts[0].pp, layouts[0].tp, layouts[0].ep, layouts[0].microbatches) == (4, 4, 4, 8)


@settings(max_examples=60, deadline=None)
@given(legal_settings())
def test_the_schedules_that_are_offered_are_all_that_are_legal(setting: Setting) -> None:
    layout, *rest = setting
    found = legal_schedules(rest[0], layout, *rest[1:])
    assert all(is_legal(other, *rest) for other in found)
    several = max(layout.virtual_stages, 2)
    expected = {
        schedule
        for schedule in SCHEDULES
        for stages in (SCHEDULES[schedule].stages_a_rank or several,)
        for partition in (layout.partition if stages == layout.virtual_stages else None,)
        for microbatches in range(1, rest[1] + 1)
        if is_legal(
            dataclasses.replace(
                layout, schedule=schedule, virtual_stages=stages, partition=partition, microbatches=microbatches
            ),
            *rest,
        )
    }
    assert [other.schedule for other in found] == [schedule for schedule in SCHEDULES if schedule in expected]
    assert all(
        other.microbatches == layout.microbatches
        or not is_legal(dataclasses.replace(other, microbatches=layout.microbatches), *rest)
        for other in found
    )


@settings(max_examples=60, deadline=None)
@given(legal_settings())
def test_the_microbatches_that_are_offered_are_all_that_are_legal(setting: Setting) -> None:
    layout, *rest = setting
    found = [other.microbatches for other in legal_microbatches(rest[0], layout, *rest[1:])]
    numbers = range(1, rest[1] + 1)
    assert found == [n for n in numbers if is_legal(dataclasses.replace(layout, microbatches=n), *rest)]


def test_a_value_that_is_no_number_hides_no_other_fault() -> None:
    layout = ParallelLayout(tp="four", pp=99)  # type: ignore[arg-type]
    found = [fault.key for fault in layout_faults(layout, ModelConfig(), 8, 256)]
    assert sorted(found) == ["parallel.microbatches", "parallel.pp", "parallel.tp"]


def offered(fault: Fault) -> list[tuple[str, Any]]:
    """The values that a fault offers for its own key and for another."""
    found = [(fault.key, words) for words in re.findall(r"legal: ([^;]+)", fault.message)]
    found += [(fault.key, words) for words in re.findall(r"(?:nearest|for instance) (.+)$", fault.message)]
    found += re.findall(r"([a-z.]+)=([^;=]+) would do", fault.message)
    return [(key, parsed(word)) for key, words in found for word in re.split(r", | or ", words)]


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
