"""The reference document's claims against the arithmetic of its own layout (notes on the planner's figures)."""

import json
from pathlib import Path
from random import Random

import hydra
import pytest
from omegaconf import OmegaConf

from project.configs import CONFIGS
from project.planner.config import claims_path, write_plan
from project.planner.cost.routing import expected_imbalance
from project.planner.document.claims import check, claim_faults, read_claims
from project.planner.document.performance_sheets import verdict_text
from project.planner.document.plan import Plan, make_plan
from project.planner.document.quantities import Quantity
from project.planner.machine.cluster_file import load_cluster
from project.planner.step import Step
from project.spec.layout import ParallelLayout
from project.spec.model import ModelConfig

DOCUMENT = claims_path("reference_document")
LAYOUT = ParallelLayout(pp=4, tp=4, ep=4, microbatches=8)


def found(layout: ParallelLayout = LAYOUT, precision: str = "bf16-true") -> Plan:
    return make_plan(Step(ModelConfig(), layout, 8, 256, precision), load_cluster("h100_2x8"))


def test_the_document_s_claims_hold_or_fail_as_its_arithmetic_says() -> None:
    checked = check(read_claims(DOCUMENT), found().quantities)
    assert {claim["claim"]: claim["verdict"] for claim in checked} == {
        "16 GPUs used": "holds",
        "16 GPUs available": "holds",
        "2.5 modules per GPU": "holds",
        "Model parameters ~2 GB per GPU": "fails",
        "Activations ~4 GB per GPU": "fails",
        "Optimizer states ~8 GB per GPU": "fails",
        "Communication buffers ~2 GB per GPU": "fails",
        "Total ~16 GB per GPU": "fails",
        "Well within 32 GB per GPU": "holds",
        "Sequential layers: 8 -> 2": "fails",
        "Expert computation: 4x parallel": "holds",
        "Attention computation: 4x parallel": "holds",
        "Latency reduced by 75%": "fails",
        "Throughput x3": "fails",
        "GPU utilization > 90%": "fails",
        "Expert utilization 100%": "fails",
        "Minimal cross-GPU transfers": "unknown",
    }
    assert all(claim["derivation"] for claim in checked)
    weights = next(claim for claim in checked if claim["quantity"] == "weight_bytes")
    assert 38e6 < weights["found"] < 71e6, "in bf16, whether experts have two matrices or three"
    assert weights["by"] == weights["found"] / 2e9


def test_the_document_s_experiment_leaves_its_claims_beside_the_plan_of_every_run(tmp_path: Path) -> None:
    with hydra.initialize_config_dir(str(CONFIGS), version_base="1.3"):
        cfg = hydra.compose("train", ["+experiment=tp4_ep4_pp4", "model=tiny"])
    config = {key: OmegaConf.to_container(cfg[key], resolve=True) for key in ("model", "parallel", "data", "trainer")}
    cluster = OmegaConf.to_container(cfg.cluster, resolve=True)
    write_plan(config | {"cluster": cluster, "document": cfg.document}, tmp_path)
    told = json.loads((tmp_path / "plan.json").read_text())["claims"]
    assert [claim["claim"] for claim in told] == [claim["claim"] for claim in read_claims(DOCUMENT)]


def test_the_pipeline_alone_idles_27_percent_and_interleaved_16() -> None:
    assert found().quantities["bubble_closed_form"].value == pytest.approx(0.273, abs=5e-4)
    twice = ParallelLayout(pp=4, tp=4, ep=4, microbatches=8, virtual_stages=2, schedule="Interleaved1F1B")
    assert found(twice).quantities["bubble_closed_form"].value == pytest.approx(0.158, abs=5e-4)


def test_random_routing_fills_experts_unevenly() -> None:
    assert expected_imbalance(256, 4, 1) == pytest.approx(1.13, abs=5e-3)
    assert expected_imbalance(256, 4, 2) == pytest.approx(1.07, abs=5e-3)
    random, worst = Random(0), []
    for _ in range(400):
        loads = [0] * 8
        for _ in range(512):
            for expert in random.sample(range(8), 2):
                loads[expert] += 1
        worst.append(max(loads) / 128)
    assert expected_imbalance(512, 8, 2) == pytest.approx(sum(worst) / len(worst), rel=0.01)


def test_a_claim_about_an_unknown_quantity_is_refused_with_the_nearest_name(tmp_path: Path) -> None:
    path = tmp_path / "claims.yaml"
    path.write_text("claims:\n  - {claim: x, quantity: weight_byte, relation: equals, claimed: many}\n")
    (fault,) = claim_faults("document", path, found().quantities)
    assert "quantity=weight_byte is not known; nearest weight_bytes" in fault.message
    assert "relation=equals is not known" in fault.message


@pytest.mark.parametrize(
    ("claim", "said"),
    [
        ("{quantity: mfu, relation: equal, claimed: 1}", "claim 1 (unnamed): claim=null must be the document's words"),
        ("{claim: '', quantity: mfu, relation: equal, claimed: 1}", "claim='' must be the document's words"),
        ("{claim: x, quantity: mfu, relation: unknown}", "claim 1 (x): claimed must be given; it is null where"),
        ("{claim: x, quantity: mfu, relation: equal}", "claimed must be given"),
        ("{claim: x, quantity: mfu, relation: equal, claimed: null}", "claimed=null must be a number"),
        ("{claim: x, quantity: mfu, relation: about, claimed: 1, within: lots}", "within=lots must be a number"),
        ("{claim: x, quantity: mfu, relation: about, claimed: 1, within: -1}", "within=-1 must be a number"),
        ("{claim: x, quantity: mfu, relation: about, claimed: 1, within: null}", "within=null must be a number"),
        ("{claim: x, quantity: [mfu], relation: {a: 1}, claimed: 1}", "quantity=[mfu] is not known"),
    ],
)
def test_a_claim_that_cannot_be_read_is_one_fault(tmp_path: Path, claim: str, said: str) -> None:
    path = tmp_path / "claims.yaml"
    path.write_text(f"claims:\n  - {claim}\n")
    (fault,) = claim_faults("document", path, found().quantities)
    assert said in fault.message


@pytest.mark.parametrize("text", ["[", "claims: 3", "- 1", "claims: []"])
def test_a_file_that_is_no_list_of_claims_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "claims.yaml").write_text(text)
    (fault,) = claim_faults("document", tmp_path / "claims.yaml", [])
    assert fault.key == "document"


@pytest.mark.parametrize(
    ("claimed", "value", "unit", "said"),
    [
        (0, 52.5e6, "B", "fails by 52.5 MB"),
        (2e9, 0, "B", "fails by 2 GB"),
        (0, 3, "1", "fails by 3"),
        (-1, 3, "1", "fails by 4"),
        (2, 8, "1", "fails: 4x"),
        (2e9, 1e9, "B", "fails: 1/2"),
    ],
)
def test_a_failed_claim_says_by_how_much_also_where_there_is_no_factor(
    claimed: float, value: float, unit: str, said: str
) -> None:
    claim = {"claim": "x", "quantity": "q", "relation": "equal", "claimed": claimed}
    (checked,) = check([claim], {"q": Quantity(value, unit, "derived", "arithmetic")})
    assert checked["difference"] == value - claimed
    assert verdict_text(checked) == said


@pytest.mark.parametrize("name", ["doc.md", "mine.json", "Mine.YAML", "no_suffix"])
def test_a_document_that_is_there_is_read_whatever_its_suffix(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path(name).write_text("claims:\n  - {claim: x, quantity: gpus_used, relation: equal, claimed: 16}\n")
    assert claims_path(name) == Path(name)
    assert claim_faults("document", claims_path(name), found().quantities) == []


def test_a_named_document_is_not_hidden_by_a_file_of_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("reference_document").write_text("")
    assert claims_path("reference_document") == DOCUMENT
    assert claims_path("nowhere.md") == Path("nowhere.md")
