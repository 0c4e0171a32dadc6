"""`document=FILE.md` from outside: what is written, what is refused, and that no text ends in a traceback."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from project.command_line.document import with_document
from project.documents.claims import MEMORY
from project.documents.statements import LARGEST
from project.planner.config import cluster_of, plan_of, step_of
from project.planner.document.derived import derive
from project.planner.document.quantities import quantities
from tests.documents.test_documents import FOUND, WRITTEN
from tests.harness.command import run
from tests.harness.paths import ROOT
from tests.harness.reported_run import CLAIM

PLAN_PY = [sys.executable, "-c", "from project import plan; plan.main()"]


def planned(document: Path, folder: Path, *typed: str, status: int = 0) -> dict[str, Any]:
    run(f"document={document}", *typed, f"hydra.run.dir={folder}", command=PLAN_PY, status=status)
    content = json.loads((folder / "plan.json").read_text())
    assert isinstance(content, dict)
    return content


def test_the_reference_document_is_planned_and_given_back(tmp_path: Path) -> None:
    plan = planned(WRITTEN / "reference.md", tmp_path)
    assert (plan["layout"]["tp"], plan["layout"]["pp"], plan["layout"]["ep"]) == (4, 4, 4)
    assert len(plan["claims"]) == 17
    assert all(claim["line"] in claim["lines"] for claim in plan["claims"])
    assert [one["verdict"] for one in plan["document"]["rank_map"]] == ["holds"] * 16
    assert plan["document"]["open"] == ["model.vocab_size"]
    text = (WRITTEN / "reference.md").read_text().split("\n")
    annotated = (tmp_path / "annotated.md").read_text().split("\n")
    assert all(there.startswith(here.rstrip()) for here, there in zip(text, annotated, strict=False))
    assert "- **Activations**: ~4GB (batch_size=8, seq_len=256) [^L92]" in annotated
    assert any(line.startswith("[^L92]: fails by 3.93 GB") for line in annotated)
    corrected = (tmp_path / "corrected.md").read_text()
    assert "- **Activations**: ~**0.0672GB** (not 4GB) (batch_size=8, seq_len=256)" in corrected
    assert "## A faster layout" in corrected


def test_a_layout_that_is_not_legal_gets_its_table_of_claims_all_the_same(tmp_path: Path) -> None:
    plan = planned(WRITTEN / "layers.md", tmp_path, "model.num_heads=7")
    assert [claim["verdict"] for claim in plan["claims"]] == ["unknown"]
    assert any("parallel.tp=2" in fault for fault in plan["faults"])
    assert "32 layers do not divide by pp 5" in (tmp_path / "corrected.md").read_text()


def test_what_is_typed_wins_over_the_document_and_is_told(tmp_path: Path) -> None:
    plan = planned(WRITTEN / "reference.md", tmp_path, "parallel.tp=2", "parallel.ep=2")
    assert plan["layout"]["tp"] == 2
    differing = [one for one in plan["document"]["settings"] if one["about"] == "parallel.tp"]
    assert {(one["said"], one["found"], one["verdict"]) for one in differing} == {(4, 2, "fails")}


def test_strict_ends_with_status_1_where_a_claim_fails(tmp_path: Path) -> None:
    planned(WRITTEN / "reference.md", tmp_path, "strict=true", status=1)


def test_a_typed_model_replaces_the_document_s() -> None:
    argv = with_document([f"document={WRITTEN / 'reference.md'}", "model=tiny"], "train")
    assert "parallel.tp=4" in argv
    assert not [one for one in argv if one.startswith(("model.", "cluster"))]


def test_every_quantity_that_a_document_may_claim_is_one_of_a_plan() -> None:
    import hydra
    from omegaconf import OmegaConf

    from project.configs import CONFIGS

    with hydra.initialize_config_dir(str(CONFIGS), version_base="1.3"):
        config: Any = OmegaConf.to_container(hydra.compose("plan", ["experiment_name=x"]), resolve=True)
    known = quantities(derive(step_of(config), cluster_of(config)))
    claimed = {quantity for _, claims in FOUND.values() for quantity, *_ in claims} | {name for name, _ in MEMORY}
    assert claimed <= known.keys()
    assert plan_of(config).document is None


BAD = {
    "binary.md": (b"\x7fELF\x00\x01\xff", "is not UTF-8"),
    "controls.md": (b"\x00\x01\x02\x03" * 50, "is binary, no Markdown"),
    "empty.md": (b"", "is empty"),
    "blank.md": (b"\n \n", "is empty"),
    "large.md": (b"x" * (LARGEST + 1), f"at most {LARGEST} are read"),
    "line.md": (b"TP=4 " * 1_000, "has a line of more than"),
    "long.md": (b"- a\n" * 20_001, "says 20,001 things, more than the 20,000 that are read"),
    "program.md": (b"import sys\nprint(sys.argv)\n", "says nothing of a model or a layout"),
}


@pytest.mark.parametrize("name", [*BAD, "nowhere.md", "folder.md"])
def test_what_is_no_document_is_refused_with_the_reason(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content, message = BAD.get(name, (None, "is missing" if name == "nowhere.md" else "is a folder, no file"))
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    elif name == "folder.md":
        path.mkdir()
    with pytest.raises(SystemExit) as end:
        with_document([f"document={path}"], "plan", {})
    assert end.value.code == 2
    told = " ".join(capsys.readouterr().err.split())
    assert f"document={path}".replace(" ", "") in told.replace(" ", "")
    assert message.replace(" ", "") in told.replace(" ", "")


ODD = """# TP=2, PP=2 on 4 GPUs

<script>alert(1)</script>

| memory | <table><tr><td>nested</td></tr></table> |
|---|---|
| Weights | ~4 GB <script>alert(2)</script> |
| Optimizer | 9 parsec |
| Activations | 1,234.5 GB |
| [red]Total | 12 GB |

- TP rank 99999999999999999999999999999999
- vocabulary: 1'000'000'000'000'000'000'000
"""


def test_html_scripts_unknown_units_and_long_numbers_are_data(tmp_path: Path) -> None:
    (tmp_path / "odd.md").write_text(ODD)
    plan = planned(tmp_path / "odd.md", tmp_path / "run")
    claimed = {claim["quantity"]: claim["claimed"] for claim in plan["claims"]}
    assert claimed["weight_bytes"] == 4e9
    assert claimed["activation_bytes"] == 1234.5e9
    assert "optimizer_bytes" not in claimed
    left = {one["line"] for one in plan["document"]["not_understood"]}
    assert {8, 12, 13} <= left


def test_a_script_in_a_cell_is_escaped_in_the_page() -> None:
    from project.report.claims import claim_row

    row = "".join(claim_row(CLAIM | {"claim": "Weights: <script>alert(2)</script>"}))
    assert "<script>" not in row


def test_the_documents_of_this_folder_are_all_named_in_a_test() -> None:
    from tests.documents.test_documents import CONTRADICTIONS

    here = {path.name for path in WRITTEN.iterdir()}
    assert here == {*FOUND, *CONTRADICTIONS, "reference.md"}
    assert ROOT.joinpath("tests/documents/written").samefile(WRITTEN)
