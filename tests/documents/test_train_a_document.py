"""`train.py document=FILE.md` trains the layout that the document describes."""

import json
from pathlib import Path

from tests.harness.command import run

WRITTEN = """# Two stages
TP=1, PP=2, DP=1 on 2 GPUs. 2 layers per stage, 1F1B with 2 microbatches.

4 layers, 2 experts, top-1, d_model=32, heads=4, d_ff=64, vocab size 512. Batch size 4, sequence length 16.

- Throughput: 3x increase
"""


def test_a_document_is_trained_as_it_says_and_its_claims_lie_beside_the_run(tmp_path: Path) -> None:
    (tmp_path / "two.md").write_text(WRITTEN)
    typed = ("data=synthetic", "trainer.max_steps=1", "trainer.limit_val_batches=1", "trainer.accelerator=cpu")
    run(f"document={tmp_path / 'two.md'}", *typed, "logger=csv", f"hydra.run.dir={tmp_path / 'run'}")
    summary = json.loads((tmp_path / "run/summary.json").read_text())
    assert (summary["layout"]["pp"], summary["layout"]["tp"], summary["steps"]) == (2, 1, 1)
    plan = json.loads((tmp_path / "run/plan.json").read_text())
    assert (plan["model"]["num_layers"], plan["model"]["d_model"]) == (4, 32)
    assert {claim["quantity"]: claim["line"] for claim in plan["claims"]} == {
        "layers_per_rank": 2,
        "throughput_gain": 6,
    }
    assert all(entry["verdict"] == "holds" for entry in plan["document"]["settings"])
    assert '<th scope="col">line</th>' in (tmp_path / "run/report.html").read_text()
