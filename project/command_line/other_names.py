"""Names that other projects give to what is configured here, and what they are called here.

A renamed key is found by its last part, in whichever section it is typed: `lr`, `optimizer.lr`, `model.optimizer.lr`.
"""

RENAMED = {
    # Lightning, Hydra templates and W&B
    "lr": "training.learning_rate",
    "max_lr": "training.learning_rate",
    "wd": "training.weight_decay",
    "warmup": "training.warmup_steps",
    "ckpt_path": "resume",
    "resume_from_checkpoint": "resume",
    "pretrained": "init_from",
    "steps": "trainer.max_steps",
    "max_iters": "trainer.max_steps",
    "train_iters": "trainer.max_steps",
    "output_dir": "hydra.run.dir",
    "run_name": "experiment_name",
    # Hugging Face
    "hidden_size": "model.d_model",
    "num_hidden_layers": "model.num_layers",
    "num_attention_heads": "model.num_heads",
    "num_key_value_heads": "model.num_kv_heads",
    "intermediate_size": "model.d_ff",
    "num_local_experts": "model.num_experts",
    "num_experts_per_tok": "model.top_k",
    "gradient_accumulation_steps": "trainer.accumulate_grad_batches",
    "max_grad_norm": "trainer.gradient_clip_val",
    # Megatron and DeepSpeed
    "ffn_hidden_size": "model.d_ff",
    "moe_router_topk": "model.top_k",
    "global_batch_size": "data.batch_size",
    "seq_length": "data.seq_len",
    "tensor_model_parallel_size": "parallel.tp",
    "pipeline_model_parallel_size": "parallel.pp",
    "expert_model_parallel_size": "parallel.ep",
    "num_microbatches": "parallel.microbatches",
}
"""The last part of a key elsewhere, and the whole key here."""

RANKS = "it follows from parallel.pp x parallel.dp x parallel.tp and trainer.num_nodes"
STRATEGY = "the section parallel describes it"
_OPTIMIZER = "the section training is the optimizer and its schedule: training.learning_rate, weight_decay ..."

INSTEAD = {
    "devices": RANKS,
    "gpus": RANKS,
    "num_gpus": RANKS,
    "nproc_per_node": RANKS,
    "trainer.devices": RANKS,
    "trainer.gpus": RANKS,
    "strategy": STRATEGY,
    "trainer.strategy": STRATEGY,
    "optimizer": _OPTIMIZER,
    "scheduler": _OPTIMIZER,
    "lr_scheduler": _OPTIMIZER,
    "hparams_search": "a search is a sweep: +sweep=optuna",
    "sweeper": "a search is a sweep: +sweep=optuna",
}
"""Whole keys elsewhere that are no one key here, and what there is instead."""
