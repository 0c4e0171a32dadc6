"""A calibration belongs to the host that it was made on; on another the figures are assumed."""

import dataclasses

import pytest
from omegaconf import OmegaConf

from project.command_line.check import check
from project.commands.plan.command import PLAN
from project.planner.config import cluster_faults_of, cluster_of
from project.planner.machine import this_host
from project.planner.machine.cluster_file import cluster_entries, load_cluster, write_cluster
from project.planner.machine.source import source_of_seconds
from project.planner.machine.this_host import calibration_file, host_key, is_calibrated, with_calibration
from project.spec.layout import ParallelLayout

NAME = "cpu_here"


@pytest.fixture
def environ(tmp_path, monkeypatch):
    monkeypatch.setenv("PROJECT_CACHE_DIR", str(tmp_path))
    return {"PROJECT_CACHE_DIR": str(tmp_path)}


def measured_here(environ, **changes):
    """Keeps a calibration of this host, and returns it."""
    all_measured = ("peak_flops", "achieved", "memory_bytes", "memory_bandwidth", "launch_s", "intra", "host")
    cluster = dataclasses.replace(load_cluster(NAME), memory_bandwidth=7e9, measured=all_measured, **changes)
    path = calibration_file(NAME, environ)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_cluster(cluster, path, "a test's")
    return cluster


def test_without_a_calibration_every_figure_is_assumed(environ):
    cluster = cluster_of({"cluster": cluster_entries(NAME)})
    assert cluster.measured == ()
    assert source_of_seconds(cluster, ParallelLayout(), "fp32") == "assumed"


def test_a_calibration_holds_on_its_host_alone(environ, monkeypatch):
    cluster = measured_here(environ)
    assert cluster_of({"cluster": cluster_entries(NAME)}) == cluster
    assert source_of_seconds(cluster, ParallelLayout(), "fp32") == "derived"
    assert cluster_of({"cluster": cluster_entries("h100_8x")}) == load_cluster("h100_8x")
    for part, other in (("_processor", "another processor"), ("version", "9.9")):
        with monkeypatch.context() as patch:
            patch.setattr(this_host, part, lambda *given, other=other: other)
            assert other in host_key()
            assert cluster_of({"cluster": cluster_entries(NAME)}) == load_cluster(NAME)


def test_what_the_configuration_changes_stays(environ):
    measured_here(environ)
    entries = cluster_entries(NAME)
    entries["peak_flops"]["fp32"], entries["nodes"] = 1e9, 2
    found = with_calibration(entries, environ)
    assert (found["peak_flops"]["fp32"], found["nodes"], found["memory_bandwidth"]) == (1e9, 2, 7e9)


@pytest.mark.parametrize("text", ["name: cpu_here\n", "name: [\n", "- 1\n"])
def test_a_damaged_calibration_is_one_fault_that_names_its_file(environ, text):
    path = calibration_file(NAME, environ)
    path.parent.mkdir(parents=True)
    path.write_text(text)
    faults = cluster_faults_of({"cluster": cluster_entries(NAME)})
    assert [fault.key for fault in faults] == ["cluster"]
    assert str(path) in faults[0].message
    assert "remove it, or calibrate again" in faults[0].message


def test_a_plan_says_that_the_machine_was_not_measured(environ, capsys, tmp_path):
    arguments = ["cluster=cpu_here", "model=tiny", "document=null", f"hydra.run.dir={tmp_path / 'run'}"]
    check(arguments, PLAN, environ)
    assert "cluster=cpu_here: this machine has not been calibrated" in " ".join(capsys.readouterr().err.split())
    measured_here(environ)
    assert is_calibrated(OmegaConf.create(cluster_entries(NAME)), environ)
    check(arguments, PLAN, environ)
    assert capsys.readouterr().err == ""
