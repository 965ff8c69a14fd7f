"""How text becomes rewards: chat template, backbone, heads, checkpoints."""
