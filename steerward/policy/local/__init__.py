"""The policy of this process: transformers models, decoded in continuous batches."""
