from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from steerward.judges import LanguageModelJudge, Template
from steerward.protocol.errors import InvalidRequest
from steerward.training.align.cgpo.label_probabilities import CausalLabelProbabilities
from tests.policies import save_policy

HELLO = [{"role": "user", "content": "Hello, how are you?"}]
LONGER = [{"role": "user", "content": "Tell me about rainbows. Light splits in drops of water."}]
LABELS = ("Yes", "No, it is not")


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    folder: Path = save_policy(tmp_path_factory.mktemp("judge") / "tiny")
    return AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)


def direct(model: Any, tokenizer: Any, turns: Any, label: str) -> float:
    """The product of softmax probabilities, one token after the other."""
    ids = tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_dict=False)
    product = 1.0
    for token in tokenizer.encode(label, add_special_tokens=False):
        with torch.no_grad():
            logits_V = model(torch.tensor([ids])).logits[0, -1]
        product *= torch.softmax(logits_V, dim=-1)[token].item()
        ids = [*ids, token]
    return product


@pytest.mark.parametrize("batch_size", [1, 3, 8])
def test_probabilities_agree_with_a_direct_softmax(
    loaded: tuple[Any, Any], batch_size: int
) -> None:
    found = CausalLabelProbabilities(*loaded, batch_size=batch_size)([HELLO, LONGER], LABELS)
    expected = [
        tuple(direct(*loaded, turns, label) for label in LABELS) for turns in (HELLO, LONGER)
    ]
    assert len(loaded[1].encode(LABELS[1], add_special_tokens=False)) > 1
    for ours, theirs in zip(found, expected, strict=True):
        assert ours == pytest.approx(theirs, rel=1e-4)


def test_the_decision_of_a_judge_is_that_of_the_direct_softmax(loaded: tuple[Any, Any]) -> None:
    template = Template(text="{prompt} {completion}", passing="a", failing="e")
    judge = LanguageModelJudge(
        name="own",
        template=template,
        label_probabilities=CausalLabelProbabilities(*loaded),
        least_mass=0.0,
    )
    texts = ["Hello", "fox", "water", "dog 1 2 3"]
    expected = []
    for text in texts:
        turns = [{"role": "user", "content": f"So? {text}"}]
        passing, failing = (direct(*loaded, turns, label) for label in ("a", "e"))
        expected.append(1 if passing >= failing else 0)
    assert judge.judge(["So?"] * 4, texts) == expected


def test_nothing_is_asked_of_no_conversations(loaded: tuple[Any, Any]) -> None:
    assert CausalLabelProbabilities(*loaded)([], LABELS) == []


def test_a_model_in_training_goes_on_training(loaded: tuple[Any, Any]) -> None:
    model, tokenizer = loaded
    model.train()
    CausalLabelProbabilities(model, tokenizer)([HELLO], LABELS)
    assert model.training
    model.eval()


def test_what_cannot_be_asked_is_refused(loaded: tuple[Any, Any], tmp_path: Path) -> None:
    ask = CausalLabelProbabilities(*loaded)
    with pytest.raises(InvalidRequest, match="no token"):
        ask([HELLO], ("Yes", ""))
    with pytest.raises(InvalidRequest, match="tokens, and its model reads 256"):
        ask([[{"role": "user", "content": "x y " * 300}]], LABELS)
    with pytest.raises(InvalidRequest, match="batch_size is 0"):
        CausalLabelProbabilities(*loaded, batch_size=0)
    folder = save_policy(tmp_path / "plain", has_template=False)
    with pytest.raises(InvalidRequest, match="chat template"):
        CausalLabelProbabilities(loaded[0], AutoTokenizer.from_pretrained(folder))
