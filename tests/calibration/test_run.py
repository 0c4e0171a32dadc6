"""`calibrate=true` takes GPUs where there are any, else processors, and leaves the file in both places."""

import dataclasses

import pytest

from project.calibration import run
from project.planner.machine.cluster_file import load_cluster


@pytest.mark.parametrize(("devices", "name"), [(0, "cpu_here"), (4, "gpu_here")])
def test_calibration_measures_this_machine_and_writes_its_cluster_file(monkeypatch, tmp_path, devices, name):
    clusters, folder = tmp_path / "clusters", tmp_path / "run"
    clusters.mkdir()
    folder.mkdir()
    measured = dataclasses.replace(load_cluster("cpu_here" if devices == 0 else "a100_8x"), name=name)

    def calibrate(called, progress, *devices):
        progress("all of it")
        return dataclasses.replace(measured, name=called)

    monkeypatch.setattr(run.torch.cuda, "device_count", lambda: devices)
    monkeypatch.setattr(run.gpus if devices else run.processors, "calibrate", calibrate)
    run.calibrate(clusters, folder)
    assert load_cluster(name, clusters) == load_cluster(name, folder) == measured
