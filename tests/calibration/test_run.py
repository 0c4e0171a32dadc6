"""`calibrate=true` takes GPUs where there are any, else processors, and keeps the file under the host, and in the run's
folder; the load of other processes is said."""

import dataclasses

import pytest

from project.calibration import run
from project.planner.machine.cluster_file import load_cluster
from project.planner.machine.this_host import calibration_file


@pytest.mark.parametrize(("devices", "name"), [(0, "cpu_here"), (4, "gpu_here")])
def test_calibration_measures_this_machine_and_keeps_its_cluster_file_under_the_host(
    monkeypatch, tmp_path, devices, name
):
    environ = {"PROJECT_CACHE_DIR": str(tmp_path / "cache")}
    measured = _calibrate(monkeypatch, devices, name)
    (tmp_path / "run").mkdir()
    run.calibrate(tmp_path / "run", environ)
    kept = calibration_file(name, environ)
    assert load_cluster(name, kept.parent) == load_cluster(name, tmp_path / "run") == measured


@pytest.mark.parametrize("remark", [None, "measured while other processes kept 1.4 of 2 cores busy"])
def test_calibrating_under_load_is_said_and_noted_in_the_file(monkeypatch, tmp_path, capsys, remark):
    _calibrate(monkeypatch, 0, "cpu_here")
    monkeypatch.setattr(run.OtherLoad, "remark", lambda self: remark)
    run.calibrate(tmp_path, {"PROJECT_CACHE_DIR": str(tmp_path / "cache")})
    said, written = " ".join(capsys.readouterr().out.split()), (tmp_path / "cpu_here.yaml").read_text()
    words = "easured while other processes kept 1.4 of 2 cores busy"
    assert (words in said) == (words in written) == (remark is not None)


def _calibrate(monkeypatch, devices, name):
    """Replaces what is measured by a cluster, which is returned."""
    measured = dataclasses.replace(load_cluster("cpu_here" if devices == 0 else "a100_8x"), name=name)

    def calibrate(called, progress, *devices):
        progress("all of it")
        return dataclasses.replace(measured, name=called)

    monkeypatch.setattr(run.torch.cuda, "device_count", lambda: devices)
    monkeypatch.setattr(run.gpus if devices else run.processors, "calibrate", calibrate)
    return measured
