"""From messages to token ids, with the positions that the heads and the gate read.

The checkpoint's own chat template is rendered, then encoded piece by piece: special tokens are
recognised only where the *template* put them, never inside content, so text such as
``<|eot_id|>`` or ``[PAD]`` in a turn stays text and moves no position. Positions follow from the
messages while the ids are built; nothing is searched for in the ids, and nothing is ever cut.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from jinja2.exceptions import TemplateError
from tokenizers import AddedToken, Encoding, Tokenizer
from transformers import PreTrainedTokenizerBase

from steerward.protocol.errors import CheckpointRefused, InvalidRequest

Turn = Mapping[str, str]
"""One message: ``role`` and ``content``."""

# Unicode noncharacters: valid in a string, never part of interchanged text.
_MARKS = [chr(code) for code in range(0xFDD0, 0xFDF0)]

_PROBES: list[list[Turn]] = [
    [{"role": "user", "content": "Hi, who's there?"}, {"role": "assistant", "content": "It's me."}],
    [
        {"role": "user", "content": "1 + 1 = ?\n\nAnswer:"},
        {"role": "assistant", "content": "2, of course"},
        {"role": "user", "content": "Écris « bonjour » 日本語"},
        {"role": "assistant", "content": "```py\nprint('x')\n```"},
    ],
]


@dataclass(frozen=True, slots=True)
class EncodedConversation:
    """Token ids of one conversation and where to read it."""

    ids: list[int]
    """Whole conversation; the last token is the one the heads read."""
    prompt_length: int
    """Tokens before the candidate's own text; the rest belongs to the candidate."""
    gating_position: int
    """The special token that closes the turn before the candidate; where the template has
    none there, the last token before the candidate."""


@dataclass(frozen=True, slots=True)
class _Piece:
    """A run of text between special tokens, or one special token of the template."""

    start: int
    text: str
    special_id: int | None


@dataclass(frozen=True, slots=True)
class _Run:
    """A run of text as tokens."""

    encoding: Encoding
    ids: list[int]
    """Of the encoding, which makes a list of them each time it is asked."""

    def tokens_within(self, length: int) -> int:
        """Return how many tokens lie within the first characters."""
        return sum(end <= length for _, end in self.encoding.offsets)


class ChatEncoder:
    """Encodes conversations for one checkpoint.

    Args:
        tokenizer: The checkpoint's tokenizer; it must be a fast one.
        template: Jinja chat template to use in place of the tokenizer's own.

    Raises:
        CheckpointRefused: If there is no template, the tokenizer is not a fast one, or the ids
            differ from those of the tokenizer's own way through the template.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, *, template: str | None = None) -> None:
        if not tokenizer.is_fast:
            raise CheckpointRefused(
                "the tokenizer has no tokenizer.json; convert it with transformers "
                "(AutoTokenizer.from_pretrained(..., from_slow=True).save_pretrained(...))"
            )
        if template is None and not tokenizer.chat_template:
            raise CheckpointRefused(
                "the tokenizer has no chat template; add a chat_template.jinja beside it"
            )
        self.tokenizer = tokenizer
        self._template = template
        backend = cast("Tokenizer", tokenizer.backend_tokenizer)  # pyright: ignore[reportAttributeAccessIssue]
        self._encoder = _content_encoder(backend.to_str())
        self._continuation = _content_encoder(_without_first_prefix(backend.to_str()))
        self._special: dict[str, tuple[int, AddedToken]] = {
            token.content: (token_id, token)
            for token_id, token in backend.get_added_tokens_decoder().items()
            if token.special
        }
        # The unknown token is an ordinary outcome of encoding text, not an injected token.
        self._special_ids = {
            token_id for text, (token_id, _) in self._special.items() if text != tokenizer.unk_token
        }
        longest_first = sorted(self._special, key=len, reverse=True)
        self._special_pattern = re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")
        bos_id = tokenizer.bos_token_id
        self._bos_id = bos_id if isinstance(bos_id, int) else None
        added = backend.encode("a", add_special_tokens=True).ids
        self._adds_bos = self._bos_id is not None and added[0] == self._bos_id
        self._check_against_tokenizer()

    def encode(self, context: Sequence[Turn], answers: Sequence[str]) -> list[EncodedConversation]:
        """Return each answer encoded behind the context.

        Raises:
            InvalidRequest: If the template refuses the turns, or rewrites them so that content
                and template cannot be told apart.
        """
        return list(self.encode_each(context, answers))

    def encode_each(
        self, context: Sequence[Turn], answers: Sequence[str]
    ) -> Iterator[EncodedConversation]:
        """Yield what `encode` returns; nothing is rendered before it is asked for."""
        memo: dict[tuple[bool, str], _Run] = {}
        for answer in answers:
            yield self._encode_one([*context, {"role": "assistant", "content": answer}], memo)

    def encode_prompt(self, turns: Sequence[Turn]) -> list[int]:
        """Return the ids of turns with the template's opening of the assistant's next turn.

        Raises:
            InvalidRequest: As `encode`.
        """
        memo: dict[tuple[bool, str], _Run] = {}
        text, spans = self._render(turns, opens_answer=True)
        ids: list[int] = []
        for piece in self._pieces(text, spans):
            if piece.special_id is not None:
                ids.append(piece.special_id)
            else:
                ids += self._encode_run(piece, memo).ids
        return self._with_bos(ids)

    def encode_text(self, text: str) -> list[int]:
        """Return the ids of plain text, with BOS where the tokenizer adds it.

        Special tokens are recognised nowhere: their text is encoded as text.

        Raises:
            InvalidRequest: If the tokenizer makes a special token of part of it all the same.
        """
        memo: dict[tuple[bool, str], _Run] = {}
        return self._with_bos(list(self._encode_run(_Piece(0, text, None), memo).ids))

    def check_opening(self, ids: Sequence[int]) -> None:
        """Refuse ids of a whole conversation that open otherwise than `encode` lets them.

        Raises:
            InvalidRequest: If the BOS token is doubled, or missing where the tokenizer adds it.
        """
        if self._begins_with_two_bos(ids):
            raise InvalidRequest(
                f"the conversation begins with two BOS tokens ({self._bos_id}); send one: the chat "
                "template and the tokenizer have each added theirs"
            )
        if self._adds_bos and ids[0] != self._bos_id:
            raise InvalidRequest(
                f"the conversation begins with token {ids[0]}, and this model reads none without "
                f"its BOS token; put {self._bos_id} first"
            )

    def _begins_with_two_bos(self, ids: Sequence[int]) -> bool:
        return self._bos_id is not None and list(ids[:2]) == [self._bos_id] * 2

    def _encode_one(
        self, turns: Sequence[Turn], memo: dict[tuple[bool, str], _Run]
    ) -> EncodedConversation:
        text, spans = self._render(turns)
        candidate_start = spans[-1][0]
        turn_end = spans[-2][1] if len(spans) > 1 else 0
        ids: list[int] = []
        prompt_length: int | None = None
        gating_position: int | None = None
        for piece in self._pieces(text, spans):
            if prompt_length is None and piece.start >= candidate_start:
                prompt_length = len(ids)
            if piece.special_id is not None:
                if gating_position is None and turn_end <= piece.start < candidate_start:
                    gating_position = len(ids)
                ids.append(piece.special_id)
                continue
            run = self._encode_run(piece, memo)
            if prompt_length is None and piece.start + len(piece.text) > candidate_start:
                before = candidate_start - piece.start
                prompt_length = len(ids) + run.tokens_within(before)
            ids.extend(run.ids)
        if prompt_length is None:
            prompt_length = len(ids)
        if gating_position is None:
            gating_position = max(prompt_length - 1, 0)
        return self._with_one_bos(ids, prompt_length, gating_position)

    def _with_one_bos(
        self, ids: list[int], prompt_length: int, gating_position: int
    ) -> EncodedConversation:
        opened = self._with_bos(ids)
        prompt_length += len(opened) - len(ids)
        gating_position += len(opened) - len(ids)
        ids = opened
        # At least one token is the candidate's, so that there is one to read.
        prompt_length = min(prompt_length, len(ids) - 1)
        return EncodedConversation(ids, prompt_length, min(gating_position, prompt_length))

    def _with_bos(self, ids: list[int]) -> list[int]:
        if self._begins_with_two_bos(ids):
            raise CheckpointRefused("the chat template begins with two BOS tokens; remove one")
        if self._adds_bos and ids[:1] != [self._bos_id]:
            assert self._bos_id is not None
            return [self._bos_id, *ids]
        return ids

    def _render(
        self, turns: Sequence[Turn], *, opens_answer: bool = False
    ) -> tuple[str, list[tuple[int, int]]]:
        """Return the rendered text and the span of each turn's content in it."""
        contents = "".join(turn["content"] for turn in turns)
        marks = [mark for mark in _MARKS if mark not in contents][:2]
        if len(marks) < 2:
            raise InvalidRequest("the text holds too many Unicode noncharacters to be marked")
        opening, closing = marks
        marked = self._apply_template(
            [_marked(turn, opening, closing) for turn in turns], opens_answer=opens_answer
        )
        # Literal, mark, content, mark, literal and so on.
        parts = re.split(f"([{opening}{closing}])", marked)
        spans: list[tuple[int, int]] = []
        length = 0
        for i, part in enumerate(parts[::2]):
            if i % 2:
                spans.append((length, length + len(part)))
            length += len(part)
        text = "".join(parts[::2])
        is_whole = parts[1::2] == [opening, closing] * len(turns)
        # Marks may have led the template elsewhere, so it must give the same without them.
        if not is_whole or text != self._apply_template(turns, opens_answer=opens_answer):
            raise InvalidRequest(
                "the chat template of this model leaves out or rewrites some of these "
                "turns, so content and template cannot be told apart; simplify the turns (roles in "
                "order, no reasoning or tool blocks inside content)"
            )
        return text, spans

    def _apply_template(self, turns: Sequence[Turn], *, opens_answer: bool = False) -> str:
        try:
            rendered = self.tokenizer.apply_chat_template(
                [dict(turn) for turn in turns],
                chat_template=self._template,
                tokenize=False,
                add_generation_prompt=opens_answer,
            )
        except TemplateError as error:
            raise InvalidRequest(
                f"the chat template of this model refuses these turns: {error}"
            ) from error
        assert isinstance(rendered, str)
        return rendered

    def _pieces(self, text: str, spans: Sequence[tuple[int, int]]) -> list[_Piece]:
        pieces: list[_Piece] = []
        run_start = 0
        for start, end, token_id, token in self._template_specials(text, spans):
            run = text[run_start:start]
            # Flags of added tokens: white space beside the token belongs to it.
            run = run.rstrip() if token.lstrip else run
            if run:
                pieces.append(_Piece(run_start, run, None))
            pieces.append(_Piece(start, text[start:end], token_id))
            run_start = end
            if token.rstrip:
                run_start += len(text[end:]) - len(text[end:].lstrip())
        if text[run_start:]:
            pieces.append(_Piece(run_start, text[run_start:], None))
        return pieces

    def _template_specials(
        self, text: str, spans: Sequence[tuple[int, int]]
    ) -> list[tuple[int, int, int, AddedToken]]:
        """Return the special tokens in the template's own text, in order."""
        found: list[tuple[int, int, int, AddedToken]] = []
        literal_start = 0
        for content_start, content_end in [*spans, (len(text), len(text))]:
            for match in self._special_pattern.finditer(text, literal_start, content_start):
                found.append((match.start(), match.end(), *self._special[match.group()]))
            literal_start = content_end
        return found

    def _encode_run(self, piece: _Piece, memo: dict[tuple[bool, str], _Run]) -> _Run:
        is_first = piece.start == 0
        key = (is_first, piece.text)
        if key not in memo:
            encoder = self._encoder if is_first else self._continuation
            encoding = encoder.encode(piece.text, add_special_tokens=False)
            run = _Run(encoding, encoding.ids)
            if not self._special_ids.isdisjoint(run.ids):
                raise InvalidRequest(
                    "the tokenizer of this model turns part of the text into a special "
                    "token; it cannot be read as plain text"
                )
            memo[key] = run
        return memo[key]

    def _check_against_tokenizer(self) -> None:
        """Compare ids with those of the tokenizer's own way, on text without special tokens."""
        for turns in _PROBES:
            try:
                ours = self._encode_one(turns, {}).ids
            except InvalidRequest:
                continue  # Templates for a single turn refuse the longer probe.
            text = self._apply_template(turns)
            theirs = self.tokenizer(text, add_special_tokens=False)["input_ids"]
            if ours != theirs and ours[1:] != theirs:
                raise CheckpointRefused(
                    "token ids built from messages differ from the tokenizer's own; its "
                    "tokenizer.json uses rules that Steerward does not reproduce"
                )


def _marked(turn: Turn, opening: str, closing: str) -> dict[str, str]:
    """Return the turn with marks around its content, inside the outer white space.

    Templates trim content; marks outside the white space would keep them from doing so.
    """
    content = turn["content"]
    core = content.strip()
    lead = len(content) - len(content.lstrip())
    tail = content[lead + len(core) :]
    return {**turn, "content": f"{content[:lead]}{opening}{core}{closing}{tail}"}


def _content_encoder(tokenizer_json: str) -> Tokenizer:
    encoder = Tokenizer.from_str(tokenizer_json)
    encoder.encode_special_tokens = True  # Their text is encoded as text.
    encoder.no_truncation()
    encoder.no_padding()
    return encoder


def _without_first_prefix(tokenizer_json: str) -> str:
    """Return the tokenizer for runs that do not open the text.

    Metaspace with the scheme "first" prepends a space only to the text's first run.
    """

    def adapt(node: Any) -> Any:
        if isinstance(node, list):
            return [adapt(child) for child in cast("list[Any]", node)]
        if not isinstance(node, dict):
            return node
        fields = {key: adapt(child) for key, child in cast("dict[str, Any]", node).items()}
        if fields.get("type") == "Metaspace" and fields.get("prepend_scheme") == "first":
            fields["prepend_scheme"] = "never"
        return fields

    description = json.loads(tokenizer_json)
    description["pre_tokenizer"] = adapt(description.get("pre_tokenizer"))
    return json.dumps(description)
