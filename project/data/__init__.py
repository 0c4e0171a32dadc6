"""From documents to batches of tokens: corpus, tokenizer, token file, order, datamodule."""
