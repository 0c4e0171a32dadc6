"""Weights that are no floating-point numbers, not finite, or of another writer are named by every command's check."""

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from project.commands import convert
from project.commands.train.starting_point import init_from_faults
from project.spec.model import ModelConfig
from project.state.weights.source import open_weights
from project.state.weights.weights import WeightsError
from tests.harness.a_run import CASE


def changed(exported: Path, folder: Path, change: Callable[[dict[str, Tensor]], dict[str, Tensor]]) -> Path:
    """The exported weights after a change, in one file."""
    tensors: dict[str, Tensor] = {}
    for file in exported.glob("*.safetensors"):
        tensors |= load_file(file)
    shutil.copytree(exported, folder, ignore=shutil.ignore_patterns("*.safetensors*"))
    save_file({name: tensor.contiguous() for name, tensor in change(tensors).items()}, folder / "model.safetensors")
    return folder


def refused(source: Path, target: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> str:
    monkeypatch.setattr(sys, "argv", ["convert.py", "from_hf", str(source), str(target)])
    with pytest.raises(SystemExit) as ended:
        convert.main()
    assert ended.value.code == 2
    assert not target.exists()
    return " ".join(capsys.readouterr().err.split())


DTYPES = [torch.float8_e4m3fn, torch.float8_e5m2, torch.int8, torch.int32, torch.bool, torch.complex64]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("which", ["w1", "lm_head", "norm"])
def test_weights_that_are_no_floating_point_numbers_of_16_bits_or_more_are_refused(
    dtype: torch.dtype,
    which: str,
    exported: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    source = changed(
        exported, tmp_path / "hf", lambda all: {n: t.to(dtype) if which in n else t for n, t in all.items()}
    )
    said = refused(source, tmp_path / "ckpt", monkeypatch, capsys)
    assert which in said
    assert "save it in bfloat16" in said
    assert any(which in str(fault) for fault in init_from_faults(str(source), CASE.model))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_numbers_that_are_not_finite_are_refused(
    value: float, exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def change(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        tensors["lm_head.weight"].view(-1)[7] = value
        return tensors

    source = changed(exported, tmp_path / "hf", change)
    said = refused(source, tmp_path / "ckpt", monkeypatch, capsys)
    assert "lm_head.weight has 1 of" in said
    assert "not finite" in said
    with pytest.raises(WeightsError, match="not finite"):
        open_weights(source).verify()


@pytest.mark.parametrize("wrong", ["a tensor twice", "a tensor elsewhere", "no tensors"])
def test_an_index_that_contradicts_its_files_is_refused(wrong: str, exported: Path, tmp_path: Path) -> None:
    source = changed(exported, tmp_path / "hf", lambda tensors: tensors)
    tensors = load_file(source / "model.safetensors")
    (source / "model.safetensors").unlink()
    names = sorted(tensors)
    first = {name: tensors[name] for name in names[:4]}
    second = {name: tensors[name] for name in names[4:]}
    places = dict.fromkeys(first, "a.safetensors") | dict.fromkeys(second, "b.safetensors")
    match wrong:
        case "a tensor twice":
            second[names[0]] = torch.zeros_like(tensors[names[0]])
        case "a tensor elsewhere":
            places[names[0]] = "b.safetensors"
        case "no tensors":
            places = {}
    save_file(first, source / "a.safetensors")
    save_file(second, source / "b.safetensors")
    (source / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    said = {
        "a tensor twice": rf"b.safetensors: has {names[0]}, which a.safetensors has too",
        "a tensor elsewhere": rf"a.safetensors: has {names[0]}, which .*index.json places in b.safetensors",
        "no tensors": "has no weight_map",
    }
    with pytest.raises(WeightsError, match=said[wrong]):
        open_weights(source)


def renamed(prefix: str) -> Callable[[dict[str, Tensor]], dict[str, Tensor]]:
    return lambda tensors: {f"{prefix}{name}": tensor for name, tensor in tensors.items()}


def stacked(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    kept = {name: tensor for name, tensor in tensors.items() if ".experts." not in name}
    return kept | {"model.layers.0.mlp.experts.gate_up_proj": torch.zeros(4, 2, 2)}


def with_an_adapter(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return tensors | {"base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight": torch.zeros(2, 2)}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (renamed("module."), "save the model below: model.module"),
        (renamed("_orig_mod."), "save the model below: model._orig_mod"),
        (renamed("base_model.model."), "merge_and_unload()"),
        (renamed("_fsdp_wrapped_module."), "save the full state_dict"),
        (with_an_adapter, "merge_and_unload()"),
        (stacked, "(gate_up_proj, down_proj), as transformers 5 does in memory; write the files by model.save"),
        (lambda all: {n.removeprefix("model."): t for n, t in all.items() if "lm_head" not in n}, "without a head"),
        (lambda all: all | {"lm_head.weight_scale": torch.ones(1)}, "dequantized"),
        (
            lambda all: all | {"model.layers.0.self_attn.q_norm.weight": torch.ones(1)},
            "no part of the family",
        ),
    ],
)
def test_tensors_of_another_writer_are_named_with_the_way_to_save_them(
    change: Callable[[dict[str, Tensor]], dict[str, Tensor]],
    said: str,
    exported: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    source = changed(exported, tmp_path / "hf", change)
    assert said in refused(source, tmp_path / "ckpt", monkeypatch, capsys)


def test_an_adapter_s_folder_is_refused_with_the_way_to_merge_it(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA"}))
    (fault,) = init_from_faults(str(tmp_path), ModelConfig())
    assert "merge_and_unload()" in fault.message
