from dataclasses import replace
import pytest
from project.planner.memory.activations import kept_by_module
from project.planner.memory.peak import activation_peaks
from project.planner.step import Step
from project.spec.layout import ParallelLayout
from tests.harness.case import SMALL, Case
from tests.harness.measured import peaks_of
from tests.harness.oracle import expected
from tests.harness.outcome import TOLERANCE, check_step
from tests.harness.training import train
from tests.parity.test_layouts import LAYOUTS
QK = replace(SMALL, qk_norm=True, num_kv_heads=4)

@pytest.mark.parametrize("name", ["single", "tp2_ep2_pp2", "tp4_ep4"])
def test_parity(ranks, name):
    case = Case(LAYOUTS[name], QK, precision="32-true")
    check_step(train(ranks, case, initial=True), expected(ranks, case), TOLERANCE["32-true"])

@pytest.mark.parametrize("recompute", ["none", "selective", "full"])
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "bf16-true", "64-true"])
@pytest.mark.parametrize("kv", [2, 4])
def test_kept(ranks, recompute, precision, kv):
    case = Case(ParallelLayout(pp=2, tp=2, ep=2, microbatches=4, recompute=recompute), replace(QK, num_kv_heads=kv, num_dense_layers=1), precision=precision, steps=2)
    measured = ranks.run(4, peaks_of, case)[0]
    assert activation_peaks(Step(case.model, case.layout, case.batch, case.seq_len, case.precision)) == measured
