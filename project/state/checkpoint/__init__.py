"""Checkpoints on disk. Torch and safetensors only; no process group, no layout.

A checkpoint is a folder. Its name is its own only when it is whole: until then it is `.NAME.partial-TOKEN` beside it.

    step=10.ckpt/
        manifest.json                 the format's version, and of every other file its size and its checksum
        meta.json                     what belongs to the run: step, loops, callbacks, layout, versions, configuration
        tokenizer.json                only in one that was converted: a run has its tokenizer in its own folder
        rank-00003.json               what belongs to one rank: random numbers, optimizer groups, schedulers
        weights-00003.safetensors     what that rank wrote of the weights and persistent buffers
        optimizer-00003.safetensors   and of the optimizer's state; absent from one of weights alone

A tensor has its global name, the same under every layout, and lies in one or more chunks, each in one file. A file's
header says where its chunks belong: `__metadata__["DCP_SHARDING_INFO"]` is `{name: {"saved_offsets": [..]}}`, as
`torch.distributed.checkpoint.HuggingFaceStorageWriter` has it, so that torch's `HuggingFaceStorageReader` opens the
folder too. The state of a weight, `exp_avg` say, is `optimizer.0.exp_avg.NAME`, of optimizer 0.

Nothing in it is code: tensors are safetensors, the rest is JSON (`values`). A reader takes no file that the manifest
does not name, no file of another size, and no tensor whose chunks do not make up the whole.
"""
