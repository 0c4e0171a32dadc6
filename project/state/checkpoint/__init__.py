"""Checkpoints on disk, independent of process groups and layouts.

A checkpoint is a folder. It gets its name when it is complete; until then it is `.NAME.partial-TOKEN` beside it.

    step=10.ckpt/
        manifest.json                 the format's version, and the size and the checksum of every other file
        meta.json                     the run's state: step, loops, callbacks, layout, versions, configuration
        tokenizer.json                in a converted checkpoint only: a run has its tokenizer in its own folder
        rank-00003.json               a rank's state: random numbers, optimizer groups, schedulers
        weights-00003.safetensors     the weights and persistent buffers that the rank wrote
        optimizer-00003.safetensors   the optimizer state that the rank wrote; absent from a checkpoint of weights alone

A tensor has its global name, the same under every layout, and lies in one or more chunks, each in one file. A file's
header has the offsets of its chunks in their tensors: `__metadata__["DCP_SHARDING_INFO"]` is `{name: {"saved_offsets":
[..]}}`, as `torch.distributed.checkpoint.HuggingFaceStorageWriter` writes it, so that torch's
`HuggingFaceStorageReader` opens the folder too. The entry `exp_avg` of optimizer 0 for a weight is
`optimizer.0.exp_avg.NAME`.

Nothing in a checkpoint is code: tensors are safetensors, the rest is JSON (`values`). A reader accepts only files that
the manifest names, of the sizes that it states, and tensors whose chunks make up the whole.
"""
