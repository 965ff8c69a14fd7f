"""Device arithmetic: attention, heads, gates, scores; a plain reference and a Triton kernel each.

One folder per op. `reference.py` is the definition, `kernel.py` the Triton path, and the folder
itself holds the function to call; `dispatch.py` picks between the two, callers never do. This
package knows tensors and nothing else: no checkpoint, no objective name, no tokenizer. It has no
backward pass of its own; where a gradient is needed the reference runs.

Axis letters: N candidates, P prompts, K objectives, H hidden, D gate hidden, T packed tokens.
"""
