"""From tokens to text as they come: whole characters only, and no further than a stop text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from tokenizers import Tokenizer
from tokenizers.decoders import DecodeStream
from transformers import PreTrainedTokenizerBase

_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


class TextStream:
    """The text of one completion.

    Args:
        tokenizer: The policy's.
        prompt: Last tokens before the completion: whether a word opens with a space may depend
            on them.
        stop: Texts that end it.
    """

    def __init__(self, tokenizer: Tokenizer, *, prompt: Sequence[int], stop: Sequence[str]) -> None:
        self._tokenizer = tokenizer
        # Behind half a character the stream would take the prompt for its own.
        if tokenizer.decode(list(prompt)).endswith(_REPLACEMENT):
            prompt = ()
        self._stream = DecodeStream(list(prompt), skip_special_tokens=True)
        self._stop = tuple(stop)
        self._held = ""
        self._pending: list[int] = []
        self.has_stopped = False
        """Whether a stop text has come; nothing is given after that."""

    def push(self, token: int) -> str:
        """Return the text that a token adds and that can no longer become a stop text."""
        piece = self._step(token)
        # Bytes that are no character yet wait inside the stream.
        self._pending = [] if piece is not None else [*self._pending, token]
        return self._release(piece or "")

    def _step(self, token: int) -> str | None:
        try:
            return self._stream.step(self._tokenizer, token)
        except Exception as error:
            # Bytes that never became a character end its state; it starts anew behind them.
            if "Invalid prefix" not in str(error):
                raise
        self._stream = DecodeStream(skip_special_tokens=True)
        return self._stream.step(self._tokenizer, token)

    def finish(self) -> str:
        """Return what was held back: the beginning of a stop text, or of a character."""
        if self.has_stopped:
            return ""
        rest = self._tokenizer.decode(self._pending) if self._pending else ""
        text = self._release(rest)
        if self.has_stopped:
            return text
        held, self._held = self._held, ""
        return text + held

    def _release(self, piece: str) -> str:
        if self.has_stopped:
            return ""
        text = self._held + piece
        places = [place for stop in self._stop if (place := text.find(stop)) >= 0]
        if places:
            self.has_stopped = True
            self._held = ""
            return text[: min(places)]
        keep = self._possible_beginning(text)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]

    def _possible_beginning(self, text: str) -> int:
        """Return how many characters at the end may be the beginning of a stop text."""
        longest = 0
        for stop in self._stop:
            for size in range(min(len(stop) - 1, len(text)), longest, -1):
                if text.endswith(stop[:size]):
                    longest = size
                    break
        return longest


class TokenTexts:
    """Text and bytes of single tokens, for log-probabilities."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer
        self._known: dict[int, tuple[str, bytes]] = {}
        self._byte_of = _byte_level_alphabet()
        # Alone, some tokenizers drop the space that a word opens with.
        self._before: list[int] = tokenizer("a", add_special_tokens=False)["input_ids"][-1:]
        self._before_text = cast("str", tokenizer.decode(self._before))

    def of(self, token: int) -> tuple[str, bytes]:
        """Return the text and the bytes of a token; bytes that are no text are replaced in it."""
        if token not in self._known:
            self._known[token] = self._read(token)
        return self._known[token]

    def _read(self, token: int) -> tuple[str, bytes]:
        behind = cast("str", self._tokenizer.decode([*self._before, token]))
        text = behind.removeprefix(self._before_text)
        if _REPLACEMENT not in text:
            return text, text.encode()
        piece = cast("str", self._tokenizer.convert_ids_to_tokens(token))
        if piece.startswith("<0x") and piece.endswith(">"):
            return text, bytes([int(piece[3:-1], 16)])
        if all(character in self._byte_of for character in piece):
            return text, bytes(self._byte_of[character] for character in piece)
        return text, text.encode()


def _byte_level_alphabet() -> dict[str, int]:
    """Return the byte that each character of a byte-level vocabulary stands for (GPT-2)."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    alphabet = {chr(byte): byte for byte in printable}
    others = (byte for byte in range(256) if byte not in printable)
    return alphabet | {chr(256 + i): byte for i, byte in enumerate(others)}
