"""`parallel.recompute=auto` keeps everything that the plan says will fit; plan and run settle the same."""

from typing import Any

import pytest
from omegaconf import OmegaConf

from project.command_line.composition import compose_or_explain
from project.configs import CONFIGS
from project.planner.config import cluster_of, plan_of, step_of
from project.planner.memory.peak import peak
from project.spec.layout import RECOMPUTE
from project.training.trainer import settle_recomputation


def composed(command: str, *overrides: str) -> Any:
    asked = ("+experiment=tp4_ep4_pp4", "parallel.recompute=auto", "cluster=h100_2x8", "trainer.precision=bf16-mixed")
    cfg = compose_or_explain(CONFIGS, command, [*asked, *overrides]).cfg
    return OmegaConf.masked_copy(cfg, ["model", "parallel", "data", "trainer", "cluster", "seed"])


def plain(cfg: Any) -> Any:
    return OmegaConf.to_container(cfg, resolve=True)


def needed(recompute: str) -> int:
    """Bytes of the largest rank."""
    config = plain(composed("plan", f"parallel.recompute={recompute}"))
    return peak(step_of(config), int(cluster_of(config).reserved_bytes))


@pytest.mark.parametrize("command", ["plan", "train"])
@pytest.mark.parametrize(
    ("least", "one_more", "chosen"),
    [("none", 0, "none"), ("none", -1, "selective"), ("selective", -1, "full"), ("full", -1, "full")],
)
def test_the_first_that_fits_to_the_byte_is_chosen(command: str, least: str, one_more: int, chosen: str) -> None:
    cfg = composed(command, f"cluster.memory_bytes={needed(least) + one_more}")
    step = step_of(plain(cfg))
    assert step.layout.recompute == chosen
    assert step == step_of({**plain(cfg), "parallel": {**plain(cfg.parallel), "recompute": chosen}})
    settle_recomputation(cfg)
    assert cfg.parallel.recompute == chosen, "and a run is configured with it"


def test_what_is_asked_for_stays() -> None:
    for asked in RECOMPUTE:
        cfg = composed("train", f"parallel.recompute={asked}", "cluster.memory_bytes=1e15")
        settle_recomputation(cfg)
        assert cfg.parallel.recompute == asked == step_of(plain(cfg)).layout.recompute


def test_each_has_less_to_keep_than_the_one_before() -> None:
    sizes = [needed(recompute) for recompute in RECOMPUTE]
    assert sizes == sorted(sizes, reverse=True)
    assert len(set(sizes)) == len(sizes)


@pytest.mark.parametrize("rate", ["16", "1e-9", "1e300"])
def test_a_plan_for_a_processor_of_any_rate_comes_to_an_end(rate: str) -> None:
    """Of actions that take ages what rounding leaves is longer than any real action."""
    cfg = composed(
        "train", "cluster=cpu_here", "model=tiny", f"cluster.peak_flops.fp32={rate}", "trainer.precision=32-true"
    )
    assert plan_of(plain(cfg)).derived.timeline.span > 0
