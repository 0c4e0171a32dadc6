"""Random legal models under random legal layouts: `make parity` draws many more."""

from dataclasses import replace
from typing import Any

from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from project.spec.layout import RECOMPUTE, ParallelLayout
from project.spec.legality.layouts import layout_faults
from project.spec.model import ModelConfig
from project.spec.schedules.table import SCHEDULES
from tests.harness.case import Case
from tests.harness.oracle import expected
from tests.harness.outcome import TOLERANCE, check_step
from tests.harness.training import train

IN_MAKE_TEST = 12
MOST_RANKS = 8
DEGREES = st.sampled_from([1, 1, 2, 3, 4])


@st.composite
def cases(draw: Any) -> Case:
    """Sizes are drawn as multiples of the degrees that divide them; what is illegal for another reason is left out."""
    pp, dp, tp = draw(DEGREES), draw(DEGREES), draw(DEGREES)
    assume(pp * dp * tp <= MOST_RANKS)
    expert_ranks = [n for n in range(1, dp * tp + 1) if dp * tp % n == 0]
    ep = draw(st.sampled_from(expert_ranks))
    etp = draw(st.sampled_from([n for n in expert_ranks if dp * tp // ep % n == 0]))
    virtual_stages = draw(st.integers(1, 2))
    few = st.integers(1, 3)
    kv_heads = tp * draw(few)
    widths = dp * tp * ep * etp
    experts = ep * draw(few)
    model = ModelConfig(
        num_layers=pp * virtual_stages + draw(st.integers(0, 2)),
        # Not 1 or 2: normalised, a width of one is a sign, and what is left of its gradients is rounding.
        d_model=widths * draw(st.integers(8 // widths + 1, 24 // widths + 1)),
        num_heads=kv_heads * draw(few),
        num_kv_heads=kv_heads,
        head_dim=4 * dp * draw(few),
        d_ff=widths * draw(st.integers(8 // widths + 1, 24 // widths + 1)),
        num_experts=experts,
        top_k=draw(st.integers(1, experts)),
        vocab_size=dp * tp * draw(st.integers(8, 16)),
        max_seq_len=64,
        num_shared_experts=draw(st.integers(0, 2)),
        num_dense_layers=draw(st.integers(0, 1)),
        score=draw(st.sampled_from(["softmax", "sigmoid"])),
        expert_balance=draw(st.sampled_from(["auxiliary", "bias", "none"])),
        auxiliary_per=draw(st.sampled_from(["sequence", "microbatch"])),
        z_coefficient=draw(st.sampled_from([0.0, 0.1])),
        capacity_factor=draw(st.sampled_from([None, 0.5, 1.0, 4.0])),
        capacity_group=draw(st.integers(1, 4)),
        init_std=0.2,
    )
    layout = ParallelLayout(
        pp=pp,
        dp=dp,
        tp=tp,
        ep=ep,
        etp=etp,
        dp_mode=draw(st.sampled_from(["replicate", "shard"])),
        schedule=draw(st.sampled_from([*SCHEDULES])),
        microbatches=draw(st.integers(1, 8)),
        virtual_stages=virtual_stages,
        recompute=draw(st.sampled_from(RECOMPUTE)),
    )
    batch = dp * layout.microbatches * draw(st.integers(1, 2))
    case = Case(layout, model, accumulate=draw(st.integers(1, 2)), batch=batch, seq_len=tp * 4 * draw(few))
    assume(not layout_faults(layout, model, case.batch, case.seq_len))
    return case


# The number of the profile `parity`, if it is chosen.
EXAMPLES = max(IN_MAKE_TEST, settings().max_examples if settings().max_examples > 100 else 0)


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(case=cases())
def test_random_models_under_random_layouts_agree_with_the_oracle(ranks, case: Case) -> None:
    for precision, tolerance in TOLERANCE.items():
        case = replace(case, precision=precision)
        check_step(train(ranks, case), expected(ranks, case), tolerance)
