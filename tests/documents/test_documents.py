"""Strategy documents in different hands, and what is to be found in each."""

from pathlib import Path
from typing import Any

import pytest

from project.documents.reading import Reading, read_document
from project.documents.settings import settings_of
from project.planner.config import claims_path
from project.planner.document.claims import read_claims

WRITTEN = Path(__file__).parent / "written"


def read(name: str) -> Reading:
    return read_document(WRITTEN / name)


def degrees(tp: int, pp: int, dp: int, ep: int | None = None, **others: Any) -> dict[str, Any]:
    found = {"parallel.tp": tp, "parallel.pp": pp, "parallel.dp": dp, **others}
    return found if ep is None else found | {"parallel.ep": ep}


def sizes(layers: int, width: int, heads: int, hidden: int, vocabulary: int) -> dict[str, Any]:
    names = ("num_layers", "d_model", "num_heads", "d_ff", "vocab_size")
    return {f"model.{name}": size for name, size in zip(names, (layers, width, heads, hidden, vocabulary), strict=True)}


def batch(sequences: int, tokens: int) -> dict[str, int]:
    return {"data.batch_size": sequences, "data.seq_len": tokens}


MOE = {"model.num_experts": 8, "model.top_k": 2}
DENSE = {"model.num_experts": 1, "model.num_dense_layers": 32}
GB = 1e9
FOUND: dict[str, tuple[dict[str, Any], set[tuple[str, str, float]]]] = {
    "prose.md": (
        degrees(4, 2, 4, 8)
        | sizes(24, 2048, 16, 5632, 32000)
        | batch(64, 2048)
        | {"model.num_experts": 16, "model.head_dim": 128}
        | {"parallel.schedule": "GPipe", "parallel.microbatches": 4},
        {("activation_bytes", "at_most", 30 * GB), ("bubble", "about", 0.2)},
    ),
    "table.md": (
        degrees(2, 4, 4, 8) | sizes(16, 2048, 16, 8192, 50304) | batch(128, 4096) | MOE | {"model.num_kv_heads": 4},
        {("weight_bytes", "about", 1.5 * GB), ("optimizer_bytes", "about", 6 * GB), ("memory_bytes", "about", 40 * GB)},
    ),
    "terse.txt": (
        degrees(4, 2, 2, 4)
        | sizes(32, 4096, 32, 14336, 32000)
        | batch(64, 4096)
        | MOE
        | {"trainer.precision": "bf16-mixed", "parallel.recompute": "selective", "parallel.microbatches": 32},
        {("step_time_s", "about", 9), ("mfu", "at_least", 0.45)},
    ),
    "dense.md": (
        degrees(2, 4, 1) | sizes(32, 4096, 32, 11008, 32000) | batch(16, 2048) | DENSE,
        {("optimizer_bytes", "about", 13 * 2**30)},
    ),
    "moe_dp.md": (
        degrees(1, 1, 8, 8) | sizes(8, 512, 8, 1024, 8192) | batch(32, 512) | {"model.top_k": 1},
        {("expert_utilization", "at_least", 1), ("tokens_per_second", "at_least", 250_000)},
    ),
    "interleaved.md": (
        degrees(1, 4, 2)
        | sizes(16, 1024, 16, 4096, 16384)
        | batch(32, 1024)
        | {"parallel.schedule": "Interleaved1F1B", "parallel.virtual_stages": 2, "parallel.microbatches": 16},
        {("bubble", "at_most", 0.1)},
    ),
    "fsdp.md": (
        degrees(1, 1, 16)
        | sizes(24, 2048, 16, 8192, 50257)
        | batch(64, 2048)
        | {"parallel.dp_mode": "shard", "trainer.precision": "bf16-mixed", "cluster.nodes": 2},
        {("weight_bytes", "about", GB), ("memory_bytes", "at_most", 40 * GB)},
    ),
    "inference.md": (degrees(4, 2, 1), {("weight_bytes", "about", 2 * GB)}),
    "arrows.md": (
        degrees(2, 2, 2, 2, **{"model.d_model": 256, "model.d_ff": 1024, "model.head_dim": 32}),
        {
            ("latency_reduction", "at_least", 0.6),
            ("throughput_gain", "at_least", 2.5),
            ("memory_bytes", "about", 3 * GB),
        },
    ),
    "mixtral_32_a100.md": (
        degrees(2, 4, 4, 4)
        | sizes(32, 4096, 32, 14336, 32000)
        | batch(256, 4096)
        | MOE
        | {"parallel.virtual_stages": 2, "parallel.microbatches": 64, "cluster.nodes": 4},
        {
            ("parameters_total", "about", 46.7e9),
            ("parameters_active", "about", 12.9e9),
            ("layers_per_rank", "equal", 8),
            ("weight_bytes", "about", 2.9 * GB),
            ("optimizer_bytes", "about", 35 * GB),
            ("activation_bytes", "at_most", 20 * GB),
            ("memory_bytes", "at_most", 70 * GB),
            ("memory_bytes", "at_most", 80 * GB),
            ("bubble", "about", 0.05),
            ("mfu", "at_least", 0.45),
            ("flops_per_gpu", "at_least", 140e12),
        },
    ),
    "terse_dense_70b.md": (
        degrees(8, 4, 2)
        | sizes(80, 8192, 64, 28672, 128256)
        | batch(512, 8192)
        | {"parallel.microbatches": 256, "parallel.partition": "[20,20,20,20]"},
        {
            ("layers_per_rank", "equal", 20),
            ("bubble", "about", 0.012),
            ("state_bytes", "about", 39.7 * GB),
            ("activation_bytes", "about", 5.6 * GB),
            ("mfu", "at_least", 0.4),
            ("flops_per_gpu", "at_least", 400e12),
            ("step_time_s", "about", 44),
        },
    ),
}


@pytest.mark.parametrize("name", FOUND)
def test_a_document_gives_its_configuration_and_its_claims(name: str) -> None:
    settings, claims = FOUND[name]
    document = read(name)
    found = settings_of(document)
    assert {key: found.value(key) for key in settings} == settings
    assert {(one["quantity"], one["relation"]) for one in document.claims} == {one[:2] for one in claims}
    claimed = sorted((one["quantity"], one["relation"], one["claimed"]) for one in document.claims)
    for (*_, here), (*_, there) in zip(claimed, sorted(claims), strict=True):
        assert here == pytest.approx(there)
    assert document.contradictions == []


def test_the_reference_document_gives_the_claims_that_were_typed_by_hand() -> None:
    document = read("reference.md")
    keys = ("quantity", "relation", "claimed")
    typed = [tuple(claim[key] for key in keys) for claim in read_claims(claims_path("reference_document"))]
    found = [tuple(claim[key] for key in keys) for claim in document.claims]
    assert len(found) == 17
    assert set(found) == set(typed)
    assert {claim["line"] for claim in document.claims if claim["quantity"] == "memory_bytes"} == {95}
    assert [place.gpu for place in document.places] == list(range(16))
    assert document.places[9].layers == (4, 5)
    assert document.contradictions == []
    assert settings_of(document).open == ["model.vocab_size"]


CONTRADICTIONS = {
    "product.md": ["line 2: tp 8 x pp 4 x dp 4 = 128, but the document has 64 GPUs"],
    "layers.md": ["line 2: 32 layers do not divide by pp 5", "line 2: 7 layers on each of 5 stages are 35, not 32"],
    "sum.md": ["line 7: the parts of the memory are 4 + 4 + 8 = 16 GB, but the total is 12 GB"],
    "speeds.md": ["line 2: at the same batch size a latency reduced by 50% is a throughput of 2x, not 5x"],
    "twice.md": ["lines 4, 5: expert 1 is placed 2 times"],
    "rank_map.md": ["lines 10, 11: TP rank 0 of stage 1 is 2 GPUs"],
    "two_layouts.md": [
        "parallel.tp has several values: 4 (line 3), 2 (line 5); the first, 4, is taken, unless parallel.tp= is typed",
        "parallel.pp has several values: 2 (line 3), 4 (line 5); the first, 2, is taken, unless parallel.pp= is typed",
    ],
    "contradictory.md": [
        "lines 1, 4: tp 4 x pp 4 x dp 4 = 64, but the document has 32 GPUs",
        "lines 4, 5: 30 layers do not divide by pp 4",
        "line 6: 10 experts on each of 8 ranks are 80, but there are 64; 8 would be right",
        "line 15: the parts of the memory are 6 + 6 + 24 + 9 = 45 GB, but the total is 40 GB",
        "line 18: at the same batch size a latency reduced by 75% is a throughput of 4x, not 3x",
    ],
}


@pytest.mark.parametrize("name", CONTRADICTIONS)
def test_a_document_that_contradicts_itself_is_told_where(name: str) -> None:
    assert read(name).contradictions == CONTRADICTIONS[name]


def test_figures_of_inference_are_declined_line_by_line() -> None:
    assert [statement.line for statement in read("inference.md").declined] == [5, 6, 7]


def test_what_is_not_understood_is_listed() -> None:
    left = {statement.line for statement in read("reference.md").not_understood}
    assert {16, 62, 127} <= left
