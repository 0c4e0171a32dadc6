"""Every bad value is named with its key, itself, and what would be legal."""

from collections.abc import Callable

import pytest

from project.spec.schedules.table import SCHEDULES

# Each row is one command; each of its lines is one complaint.
CASES = {
    "parallel.tp=3": ["parallel.tp=3: does not divide model.num_heads=8", "legal: 1, 2, 4, 8; nearest 2 or 4"],
    "parallel.tp=4 model.num_kv_heads=2": [
        "parallel.tp=4: does not divide model.num_kv_heads=2; legal: 1, 2; nearest 2"
    ],
    "parallel.tp=4 data.seq_len=30 model.d_ff=4098 model.num_dense_layers=1 model.num_shared_experts=1": [
        "parallel.tp=4: does not divide data.seq_len=30, (model.top_k + model.num_shared_experts) x model.d_ff = "
        "12294, model.num_shared_experts x model.d_ff = 4098; legal: 1, 2; nearest 2",
    ],
    "parallel.tp=8 parallel.ep=8": ["parallel.ep=8: does not divide model.num_experts=4"],
    "parallel.ep=4": ["parallel.ep=4: ep x etp = 4 does not divide parallel.dp x parallel.tp = 1"],
    "parallel.pp=9": ["parallel.pp=9: makes 9 stages (pp x virtual_stages), more than model.num_layers=8"],
    "parallel.pp=2 parallel.partition=[4,5]": [
        "parallel.partition=[4,5]: must give each of 2 stages at least one layer",
        "for instance [4,4] or null",
    ],
    "data.batch_size=12": [
        "data.batch_size=12: is not divisible by parallel.dp x parallel.microbatches = 1 x 8",
        "parallel.microbatches=1, 2, 3, 4, 6 or 12 would do; nearest 8 or 16",
    ],
    "parallel.pp=4 parallel.microbatches=2": [
        "parallel.microbatches=2: 1F1B needs at least as many microbatches as stages, 4",
        "legal: 4, 8; nearest 4",
    ],
    "parallel.pp=2 parallel.virtual_stages=2": [
        "parallel.virtual_stages=2: parallel.schedule=1F1B has 1 stage on each rank; legal: 1; nearest 1"
    ],
    "parallel.schedule=ZBVZeroBubble parallel.pp=2": [
        "parallel.virtual_stages=1: parallel.schedule=ZBVZeroBubble has 2 stages on each rank; legal: 2; nearest 2"
    ],
    "parallel.schedule=DualPipeV parallel.pp=2 parallel.virtual_stages=2 parallel.microbatches=2": [
        "parallel.microbatches=2: DualPipeV needs at least as many microbatches as stages, 4 "
        "(parallel.schedule=ZBVZeroBubble does not); legal: 4, 8; nearest 4"
    ],
    "parallel.schedule=Interleaved1F1B parallel.pp=4 parallel.virtual_stages=2 parallel.microbatches=9 "
    "data.batch_size=36": [
        "parallel.microbatches=9: Interleaved1F1B takes them in microbatches // parallel.pp = 2 rounds, which does not "
        "divide them; legal: 1, 2, 3, 4, 6, 12, 36; nearest 6 or 12"
    ],
    "parallel.pp=2 parallel.virtual_stages=9 parallel.schedule=LoopedBFS": [
        "parallel.pp=2: makes 18 stages (pp x virtual_stages), more than model.num_layers=8",
        "parallel.virtual_stages=9: is more than model.num_layers=8",
    ],
    "document=nowhere.yaml": ["document=nowhere.yaml: does not exist; give the path of a YAML file, or a name in"],
    "parallel.schedule=nowhere.csv": ["parallel.schedule=nowhere.csv: does not exist; give a path"],
    "parallel.tp=2 parallel.etp=2 model.d_ff=129": ["parallel.etp=2: does not divide model.d_ff=129; legal: 1"],
    "model.num_dense_layers=8 parallel.tp=2 parallel.ep=2": [
        "parallel.ep=2: divides experts, and none are left by model.num_dense_layers=8; legal: 1; nearest 1"
    ],
    "parallel.dp=6 parallel.tp=2 parallel.dp_mode=shard model.d_ff=130 data.batch_size=6 parallel.microbatches=1": [
        "parallel.dp_mode=shard: parallel.dp=6 does not divide model.num_heads x model.head_dim / parallel.tp = 512",
        "model.d_model=1024, model.vocab_size / parallel.tp = 4096",
        "dp x tp / (ep x etp) = 12 does not divide model.d_ff / parallel.etp = 130, model.d_model=1024",
        "parallel.dp=1 would do; legal: replicate",
    ],
    "model.capacity_factor=1.25 parallel.tp=8": [
        "model.capacity_group=64: does not divide the 32 tokens of a sequence that a rank has (data.seq_len / "
        "parallel.tp); legal: 1, 2, 4, 8, 16, 32; nearest 32"
    ],
    "model.capacity_factor=0 model.rope_theta=-1 model.num_dense_layers=-1 model.capacity_group=0": [
        "model.capacity_factor=0: must be null or a number above 0",
        "model.rope_theta=-1: must be a number above 0",
        "model.num_dense_layers=-1: must be a whole number of at least 0; nearest 0",
        "model.capacity_group=0: must be a whole number of at least 1; nearest 1",
    ],
    "model.num_dense_layers=9 model.auxiliary_per=batch parallel.dp_mode=fsdp": [
        "model.num_dense_layers=9: is more than model.num_layers=8; nearest 8",
        "model.auxiliary_per=batch: is not known; legal: sequence, microbatch; nearest microbatch",
        "parallel.dp_mode=fsdp: is not known; legal: replicate, shard",
    ],
    "parallel.schedule=1f1b parallel.recompute=ful model.score=soft trainer.precision=fp32 trainer.accelerator=cdua": [
        "parallel.schedule=1f1b: is not known, nor the path of a .csv file; legal: "
        f"{', '.join(SCHEDULES)}; nearest 1F1B",
        "parallel.recompute=ful: is not known; legal: none, selective, full, auto; nearest full",
        "model.score=soft: is not known; legal: softmax, sigmoid; nearest softmax",
        "trainer.precision=fp32: is not known; legal: auto, 32-true, bf16-mixed, bf16-true, 16-mixed, 64-true",
        "trainer.accelerator=cdua: is not known; legal: auto, cpu, cuda, gpu; nearest cuda",
    ],
    "trainer.precision=bf16-mix": ["nearest bf16-mixed"],
    "model.top_k=5 model.num_kv_heads=3 model.head_dim=127 data.seq_len=8192 data.vocab_size=9000": [
        "model.top_k=5: is more than model.num_experts=4; legal: 1, 2, 3, 4; nearest 4",
        "model.num_kv_heads=3: does not divide model.num_heads=8; legal: 1, 2, 4, 8",
        "model.head_dim=127: is odd, but rotary embedding turns pairs; nearest 126 or 128",
        "data.seq_len=8192: is more than model.max_seq_len=4096; nearest 4096",
        "data.vocab_size=9000: is more than model.vocab_size=8192",
    ],
    "parallel.tp=four parallel.ep= parallel.pp=0 model.top_k=true trainer.max_steps=-3 seed=x data.cache_dir=3": [
        "parallel.tp=four: must be a whole number of at least 1",
        "parallel.ep='': must be a whole number of at least 1",
        "parallel.pp=0: must be a whole number of at least 1; nearest 1",
        "model.top_k=true: must be a whole number",
        "trainer.max_steps=-3: must be a whole number of at least 1",
        "seed=x: must be a whole number",
        "data.cache_dir=3: must be the path of a folder",
    ],
    "training.learning_rate=fast training.betas=[0.9] data=text data.files=3": [
        "training.learning_rate=fast: must be a number above 0",
        "training.betas=[0.9]: must be two numbers",
        "data.files=3: must be a list of files and globs",
    ],
    "model.d_ff=${nope}": ["model.d_ff=${nope}: Interpolation key 'nope' not found"],
    "model.d_ff=???": ["model.d_ff=???: must be given"],
    "~data.seq_len ~trainer.precision data.corpus=null": [
        "data.seq_len=null: must not be left out",
        "trainer.precision=null: must not be left out",
        "data.corpus=null: must not be left out",
    ],
    "+parallel.tpp=2 +trainer.max_stepz=3 +data.corpus.foo=3": [
        "parallel.tpp=2: is no key of parallel; legal: pp, dp, tp",
        "trainer.max_stepz=3: is no key of trainer; nearest max_steps",
        "data.corpus=project.data.stdlib.StdlibCorpus",
    ],
    "data=text data.files=[nowhere.txt] resume=nowhere.ckpt hydra.run.dir=/dev/null/run": [
        "data.files=nowhere.txt: does not exist",
        "resume=nowhere.ckpt: does not exist",
        "hydra.run.dir=/dev/null/run: cannot be created, because /dev/null is a file",
    ],
}


@pytest.mark.parametrize("command", CASES)
def test_a_bad_value_is_named_with_what_is_legal(command: str, complaint: Callable[..., str]) -> None:
    said = complaint(*command.split())
    for words in CASES[command]:
        assert words in said


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"", "none of which holds any text"), (b"caf\xe9 " * 9999, "is not UTF-8"), (b"short", "holds 5 bytes of text")],
)
def test_a_bad_corpus_is_named(content: bytes, words: str, complaint: Callable[..., str], tmp_path_factory) -> None:  # type: ignore[no-untyped-def]
    corpus = tmp_path_factory.mktemp("corpus") / "corpus.txt"
    corpus.write_bytes(content)
    said = complaint("data=text", f"data.files=[{corpus}]")
    assert "data.files=" in said
    assert words in said


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        ["+experiment=tp4_ep4_pp4"],
        ["+experiment=tp4_ep4_pp4", "model=small"],
        ["+experiment=tp4_ep4_pp4", "model=tiny", "parallel.microbatches=4"],
        ["parallel=tp4_ep4", "parallel.ep=1"],
        ["parallel.pp=3", "parallel.partition=[3,3,2]"],
        ["trainer.precision=64-true", "data=synthetic"],
        ["parallel.pp=8", "parallel.microbatches=2", "parallel.schedule=GPipe"],
        ["parallel.dp=2", "parallel.tp=4", "parallel.ep=2", "parallel.etp=2", "parallel.microbatches=4"],
        ["parallel.dp=2", "parallel.tp=2", "parallel.ep=4", "parallel.dp_mode=shard", "parallel.microbatches=4"],
        ["parallel.tp=8", "model.d_model=1022", "model.d_ff=4099"],
        ["parallel.tp=4", "model.num_dense_layers=8", "model.num_experts=3"],
        ["parallel.pp=4", "parallel.virtual_stages=2", "parallel.schedule=DualPipeV"],
        ["parallel.tp=2", "model.capacity_factor=1.25", "model.num_dense_layers=1", "model.auxiliary_per=microbatch"],
    ],
    ids=" ".join,
)
def test_a_sound_config_passes_in_silence(overrides: list[str], accepted: Callable[..., str]) -> None:
    assert accepted(*overrides) == ""
