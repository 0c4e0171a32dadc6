"""A cluster file is checked whole, and each fault names its key."""

import dataclasses

import pytest

from project.planner.machine.cluster import Cluster
from project.planner.machine.cluster_file import CLUSTERS, ImpossibleCluster, load_cluster, read_cluster, write_cluster

NAMES = sorted(path.stem for path in CLUSTERS.glob("*.yaml"))


def test_the_promised_cluster_files_exist():
    promised = {"a100_8x", "h100_8x", "h100_2x8", "h100_128x8", "h200", "h200_8x", "b200", "cpu_here", "gpu_here"}
    assert promised <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_every_cluster_file_is_sound_and_bears_its_name(name):
    assert load_cluster(name).name == name


def test_a_cluster_file_may_name_only_what_differs_from_another():
    one, many = load_cluster("h100_8x"), load_cluster("h100_128x8")
    assert (many.gpus, many.nodes) == (1024, 128)
    assert dataclasses.replace(many, name=one.name, nodes=1) == one


def test_a_written_cluster_file_is_read_back_unchanged(tmp_path):
    cluster = load_cluster("h100_2x8")
    write_cluster(cluster, tmp_path / "mine.yaml", "Measured today\nby nobody")
    assert load_cluster("mine", tmp_path) == cluster
    assert (tmp_path / "mine.yaml").read_text().startswith("# Measured today\n# by nobody\n")


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        (("nodes",), 0, "whole number of at least 1"),
        (("gpus_per_node",), 1.5, "whole number of at least 1"),
        (("memory_bytes",), -1, "above 0"),
        (("memory_bandwidth",), "fast", "above 0"),
        (("memory_bandwidth",), None, "must be given"),
        (("peak_flops", "half"), 0, "above 0"),
        (("peak_flops", "half"), 10**400, "above 0"),
        (("peak_flops",), 3e12, "must have the keys half, tf32, fp32"),
        (("achieved", "gemm"), 1.2, "at most 1"),
        (("inter", "achieved"), 0, "above 0 and at most 1"),
        (("intra", "latency_s", "low"), 1.0, "is not between"),
        (("launch_s",), 1e-6, "must have the keys value, low, high"),
        (("tiles",), None, "must be given where multiprocessors is not 1"),
        (("tiles",), 0.9, "must have the keys rate_128x128"),
        (("tiles", "rate_64x64", "high"), 1.2, "at most 1"),
        (("tiles", "depth", "value"), 1000, "is not between"),
        (("inter", "bandwith"), 1e9, "nearest bandwidth"),
        (("measured",), True, "must be a list of the figures"),
        (("measured",), ["peak_flops.half", "lunch_s"], "lunch_s is no figure of it; nearest launch_s"),
    ],
)
def test_an_impossible_value_of_a_cluster_is_named_by_its_key(path, value, said):
    entries = dataclasses.asdict(load_cluster("h100_8x"))
    node = entries
    for key in path[:-1]:
        node = node[key]
    node[path[-1]] = value
    with pytest.raises(ImpossibleCluster) as caught:
        read_cluster(entries)
    [fault] = caught.value.faults
    expected = path[:-1] if "between" in said else path
    assert fault.key.startswith(".".join(("cluster", *expected)))
    assert said in fault.message


def test_all_faults_of_a_cluster_are_listed_at_once():
    entries = {**dataclasses.asdict(load_cluster("h100_8x")), "nodes": -1, "memory_bytes": 0, "name": ""}
    with pytest.raises(ImpossibleCluster) as caught:
        read_cluster(entries)
    assert {fault.key for fault in caught.value.faults} == {"cluster.nodes", "cluster.memory_bytes", "cluster.name"}


def test_a_cluster_is_hashable():
    """A cluster has to be hashable, because a search caches times by it."""
    assert len({load_cluster("h100_8x"), load_cluster("h100_8x")}) == 1
    assert isinstance(load_cluster("b200"), Cluster)
