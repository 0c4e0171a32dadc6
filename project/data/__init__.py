"""From documents to batches of tokens: corpus, tokenizer, token file, order of samples, datamodule."""
