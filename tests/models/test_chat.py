"""Ids and positions follow from messages; text that looks like special tokens stays text."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from steerward.models.chat import ChatEncoder
from steerward.models.presets import PRESETS
from steerward.protocol.errors import CheckpointRefused, InvalidRequest
from tests.golden_cases import GOLDEN

EOT, HEADER, END_HEADER, BOS, PAD = 1022, 1020, 1021, 1018, 1023
SPECIALS = ["<|eot_id|>", "<|start_header_id|>", "<|end_header_id|>", "<|begin_of_text|>", "[PAD]"]
HEADER_TEXT = "<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n"

texts = st.text(max_size=30) | st.sampled_from([*SPECIALS, HEADER_TEXT, "\n\n", " x ", "\ufdd0"])
contents = st.lists(texts, max_size=4).map("".join)


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return AutoTokenizer.from_pretrained(GOLDEN / "armorm")


@pytest.fixture(scope="module")
def encoder(tokenizer: PreTrainedTokenizerFast) -> ChatEncoder:
    return ChatEncoder(tokenizer)


def user(content: str) -> dict[str, str]:
    return {"role": "user", "content": content}


@settings(max_examples=300, deadline=None)
@given(prompt=contents, answer=contents)
def test_special_token_text_moves_no_position(
    encoder: ChatEncoder, prompt: str, answer: str
) -> None:
    (conversation,) = encoder.encode([user(prompt)], [answer])
    ids = conversation.ids
    # Exactly the template's own special tokens, whatever the text says.
    assert ids.count(BOS) == 1
    assert ids[0] == BOS
    assert ids.count(EOT) == 2
    assert ids.count(HEADER) == ids.count(END_HEADER) == 2
    assert PAD not in ids
    assert ids[-1] == EOT
    assert ids[conversation.gating_position] == EOT
    assert ids[conversation.gating_position + 1] == HEADER
    assert conversation.gating_position < conversation.prompt_length < len(ids)


@settings(max_examples=200, deadline=None)
@given(prompt=contents, answers=st.lists(contents, min_size=1, max_size=4))
def test_ids_are_the_tokenizers_own_where_text_has_no_special_tokens(
    encoder: ChatEncoder, tokenizer: PreTrainedTokenizerFast, prompt: str, answers: list[str]
) -> None:
    turns = [user(prompt)]
    if any(special in text for special in SPECIALS for text in (prompt, *answers)):
        return
    for answer, conversation in zip(answers, encoder.encode(turns, answers), strict=True):
        theirs = tokenizer.apply_chat_template(
            [*turns, {"role": "assistant", "content": answer}], return_dict=True
        )["input_ids"]
        assert conversation.ids == theirs


@pytest.mark.parametrize("answer", ["\n\nHello", "  Hello", "Hello\n", "", " ", "\n"])
def test_white_space_at_the_edges_keeps_the_prompt_and_its_gating_position(
    encoder: ChatEncoder, answer: str
) -> None:
    plain, odd = encoder.encode([user("Say hello.")], ["Hello", answer])
    assert odd.gating_position == plain.gating_position
    assert odd.ids[: odd.prompt_length] == plain.ids[: plain.prompt_length]


def test_gating_position_is_that_of_the_last_turn(encoder: ChatEncoder) -> None:
    turns = [user("a"), {"role": "assistant", "content": "b"}, user("c")]
    (conversation,) = encoder.encode(turns, ["d"])
    eots = [i for i, token in enumerate(conversation.ids) if token == EOT]
    assert conversation.gating_position == eots[2]
    assert len(eots) == 4


def test_candidate_tokens_begin_after_the_assistant_header(
    encoder: ChatEncoder, tokenizer: PreTrainedTokenizerFast
) -> None:
    (conversation,) = encoder.encode([user("hi")], ["Hello!"])
    assert tokenizer.decode(conversation.ids[conversation.prompt_length :]) == "Hello!<|eot_id|>"


@pytest.mark.parametrize(
    "template",
    [
        # Leaves a turn out.
        "{% for m in messages if m['role'] != 'system' %}{{ m['content'] }}{% endfor %}",
        # Rewrites content.
        "{% for m in messages %}{{ m['content'][::-1] }}<|eot_id|>{% endfor %}",
    ],
    ids=["leaves-out", "rewrites"],
)
def test_template_that_hides_a_turn_is_refused(
    tokenizer: PreTrainedTokenizerFast, template: str
) -> None:
    encoder = ChatEncoder(tokenizer, template=template)
    turns = [{"role": "system", "content": "Be brief."}, user("hi")]
    with pytest.raises(InvalidRequest, match="leaves out or rewrites"):
        encoder.encode(turns, ["yo"])


def test_templates_own_refusal_is_passed_on(tokenizer: PreTrainedTokenizerFast) -> None:
    encoder = ChatEncoder(tokenizer, template=PRESETS[DPA].template)
    with pytest.raises(InvalidRequest, match="one user turn and one answer"):
        encoder.encode([user("a"), {"role": "assistant", "content": "b"}, user("c")], ["d"])


DPA = "RLHFlow/RewardModel-Mistral-7B-for-DPA-v1"


def test_dpa_reward_model_gets_its_literal_prompt(tokenizer: PreTrainedTokenizerFast) -> None:
    encoder = ChatEncoder(tokenizer, template=PRESETS[DPA].template)
    (conversation,) = encoder.encode([user("Name a colour.")], ["Blue."])
    assert tokenizer.decode(conversation.ids) == (
        "<|begin_of_text|>[INST] You must read the following conversation carefully and rate the "
        "assistant's response from score 0-100 in these aspects: helpfulness, correctness, "
        "coherence, honesty, complexity, verbosity\n\nUser: Name a colour.\n\n"
        "Assistant: Blue. [/INST]"
    )
    # The template has no BOS; this tokenizer would add one to the plain text, so there is one.
    assert conversation.ids.count(BOS) == 1


def test_two_bos_tokens_are_refused(tokenizer: PreTrainedTokenizerFast) -> None:
    template = "{{ bos_token }}{{ bos_token }}{% for m in messages %}{{ m['content'] }}{% endfor %}"
    with pytest.raises(CheckpointRefused, match="two BOS"):
        ChatEncoder(tokenizer, template=template)


def test_missing_template_is_refused(tmp_path: Path) -> None:
    bare = AutoTokenizer.from_pretrained(GOLDEN / "armorm")
    bare.chat_template = None
    with pytest.raises(CheckpointRefused, match="no chat template"):
        ChatEncoder(bare)


@pytest.mark.parametrize("scheme", ["first", "always", "never"])
def test_sentencepiece_style_spaces_are_those_of_the_whole_text(scheme: str) -> None:
    """Runs are encoded one by one; a space before the first run only must stay the only one."""
    words = ["▁", "a", "b", "▁a", "▁b", "<unk>"]
    vocabulary = {word: i for i, word in enumerate(words)}
    backend = Tokenizer(models.BPE(vocabulary, [("▁", "a"), ("▁", "b")], unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme, split=False)
    backend.decoder = decoders.Metaspace(prepend_scheme=scheme)
    backend.add_special_tokens(["<s>", "</s>"])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<s>", unk_token="<unk>"
    )
    tokenizer.chat_template = (
        "{% for m in messages %}{% if m['role'] == 'user' %}<s>a {{ m['content'] }} b"
        "{% else %} {{ m['content'] }}</s>{% endif %}{% endfor %}"
    )
    encoder = ChatEncoder(tokenizer)
    turns = [user("b a")]
    (conversation,) = encoder.encode(turns, ["a b"])
    text = tokenizer.apply_chat_template(
        [*turns, {"role": "assistant", "content": "a b"}], tokenize=False
    )
    assert conversation.ids == tokenizer(text, add_special_tokens=False)["input_ids"]


@pytest.mark.parametrize("flag", ["lstrip", "rstrip"])
def test_added_tokens_that_take_white_space_do_so(tmp_path: Path, flag: str) -> None:
    fields = json.loads((GOLDEN / "armorm" / "tokenizer.json").read_text())
    for token in fields["added_tokens"]:
        token[flag] = token["content"] == "<|eot_id|>"
    backend = Tokenizer.from_str(json.dumps(fields))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<|begin_of_text|>")
    tokenizer.chat_template = (
        "{{ bos_token }}{% for m in messages %} {{ m['content'] }} <|eot_id|> {% endfor %}"
    )
    (conversation,) = ChatEncoder(tokenizer).encode([user("one two")], ["three"])
    text = tokenizer.apply_chat_template(
        [user("one two"), {"role": "assistant", "content": "three"}], tokenize=False
    )
    assert conversation.ids == tokenizer(text, add_special_tokens=False)["input_ids"]
