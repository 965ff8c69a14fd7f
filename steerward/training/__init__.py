"""Train reward models: embeddings, heads, gate, backbone, packaging, evaluation."""
