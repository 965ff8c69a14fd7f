"""Tokenizer and chat template of pocket-policy: a byte-level vocabulary of its own text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from recipes.pocket_policy.conversations import Conversation
from recipes.pocket_policy.rule import RULE

BEGIN, END, PAD = "<|begin|>", "<|end|>", "<|pad|>"
ROLES = ("system", "user", "assistant")
VOCABULARY = 6144

_SYSTEM_WORDS = RULE.template.replace("{helpfulness}", "").replace("{verbosity}", "")

# Words with the space before them, numbers of up to three digits as one piece, so that a weight
# of a direction can be one token; punctuation and white space by themselves.
PIECES = r"'(?:s|t|re|ve|m|ll|d)| ?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"

TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{{ '<|' + message['role'] + '|>' }}{{ message['content'] | trim }}{{ '<|end|>' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


def train_tokenizer(texts: Iterable[str], *, size: int = VOCABULARY) -> PreTrainedTokenizerFast:
    """Return a byte-level BPE tokenizer of some texts, with markers for the roles.

    Any text can be encoded and comes back as it was.
    """
    markers = [PAD, BEGIN, END, *(f"<|{role}|>" for role in ROLES)]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PIECES), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=markers,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=BEGIN,
        eos_token=END,
        pad_token=PAD,
        additional_special_tokens=markers[3:],
        clean_up_tokenization_spaces=False,
    )
    fast.chat_template = TEMPLATE
    return fast


def write_tokenizer(conversations: Sequence[Conversation], work: Path) -> PreTrainedTokenizerFast:
    """Return the tokenizer of a run, trained the first time."""
    folder = work / "tokenizer"
    if not folder.exists():
        texts = [turn["content"] for found in conversations for turn in found.messages]
        # Often enough that each number of the system strings becomes one token.
        texts += [f"{_SYSTEM_WORDS} {i} *-{i} *{i}" for i in range(101) for _ in range(100)]
        train_tokenizer(texts).save_pretrained(folder)
    return PreTrainedTokenizerFast.from_pretrained(folder)
