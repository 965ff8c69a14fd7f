"""Columns of a model that gives all objectives in one call."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer, LlamaConfig

from steerward.models.reward_model import RewardModel
from steerward.protocol.errors import (
    InputTooLong,
    InvalidRequest,
    NonFiniteScore,
    UnknownObjective,
)
from steerward.training.align.grpo.aggregation import mo_grpo
from steerward.training.align.model_columns import (
    ClassifierScorer,
    ModelColumns,
    Rewards,
    answer_text,
    reward_model_columns,
)
from tests.checkpoints import save_sequence_classifier
from tests.training.align.grpo.cases import logged, trainer_of

HELLO = [{"role": "user", "content": "Hello, how are you?"}]
RAINBOWS = "Tell me about rainbows."
PROMPTS = [HELLO, HELLO, RAINBOWS, HELLO]
ANSWERS = ["Fine.", "I am well, thank you.", "Light splits.", "No."]
COMPLETIONS = [[{"role": "assistant", "content": text}] for text in ANSWERS]


class Counted:
    """A scorer that says how long completions are, and how often it was asked."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, _: Sequence[Any], completions: Sequence[Any]) -> Rewards:
        self.calls += 1
        lengths = [float(len(answer_text(one))) for one in completions]
        return {"length": lengths, "shortness": [-one for one in lengths], "none": [None] * 4}


def test_columns_of_a_batch_share_one_call() -> None:
    scorer = Counted()
    columns = ModelColumns(scorer, ["length", "shortness", "none"], prefix="model_").functions
    assert [one.__name__ for one in columns] == ["model_length", "model_shortness", "model_none"]
    for step in (1, 2):
        found = [one(prompts=PROMPTS, completions=COMPLETIONS, source="a") for one in columns]
        assert scorer.calls == step
        assert found[0] == [float(len(text)) for text in ANSWERS]
        assert found[1] == [-float(len(text)) for text in ANSWERS]
        assert found[2] == [None] * 4


def test_batches_that_overlap_are_kept_apart() -> None:
    scorer = Counted()
    length, shortness = ModelColumns(scorer, ["length", "shortness"]).functions
    one = {"prompts": PROMPTS, "completions": COMPLETIONS}
    other = {"prompts": PROMPTS, "completions": COMPLETIONS[::-1]}
    found = [length(**one), length(**other), shortness(**one), shortness(**other)]
    assert scorer.calls == 2
    assert found[2] == [-value for value in found[0] if value is not None]
    assert found[3] == found[2][::-1]


def test_objectives_of_our_model_take_one_forward_pass(armorm: RewardModel) -> None:
    passes: list[int] = []
    handle = armorm.register_forward_hook(lambda *_: passes.append(1))
    columns = reward_model_columns(armorm, with_score=True)
    found = {f.__name__: f(prompts=PROMPTS, completions=COMPLETIONS) for f in columns}
    handle.remove()
    assert len(passes) == 1
    assert list(found) == [*armorm.objectives.names, "score"]
    for row, (prompt, answer) in enumerate(zip(PROMPTS, ANSWERS, strict=True)):
        turns = [{"role": "user", "content": RAINBOWS}] if isinstance(prompt, str) else prompt
        alone = armorm.score_conversation([*turns, {"role": "assistant", "content": answer}])
        rewards = [found[name][row] for name in armorm.objectives.names]
        assert rewards == pytest.approx(alone.rewards_NK[0].tolist(), abs=1e-4)
        assert alone.scores_N is not None
        assert found["score"][row] == pytest.approx(float(alone.scores_N[0]), abs=1e-4)


def test_objectives_are_chosen_by_name(armorm: RewardModel) -> None:
    columns = reward_model_columns(armorm, objectives=["objective_3"], prefix="rm_")
    assert [one.__name__ for one in columns] == ["rm_objective_3"]
    with pytest.raises(UnknownObjective, match="absent"):
        reward_model_columns(armorm, objectives=["absent"])


@pytest.fixture
def classifier(tmp_path: Path) -> tuple[Any, Any]:
    config = LlamaConfig(
        vocab_size=1024,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=64,
        pad_token_id=0,
        initializer_range=0.5,
    )
    config.num_labels, config.problem_type = 3, "regression"
    model = save_sequence_classifier(tmp_path / "rm", config)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "rm")
    tokenizer.pad_token_id = 0
    return model, tokenizer


def test_labels_of_a_classifier_are_its_logits_by_one_forward_pass(
    classifier: tuple[Any, Any],
) -> None:
    model, tokenizer = classifier
    passes: list[int] = []
    model.register_forward_hook(lambda *_: passes.append(1))
    scorer = ClassifierScorer(model, tokenizer, names=["a", "b", "c"])
    columns = ModelColumns(scorer, scorer.names).functions
    prompts, completions = ["Hello", "Tell me"], [" there", " about rainbows."]
    found = [one(prompts=prompts, completions=completions) for one in columns]
    assert len(passes) == 1
    for row, text in enumerate(["Hello there", "Tell me about rainbows."]):
        ids = tokenizer(text, return_tensors="pt", add_special_tokens=False)["input_ids"]
        with torch.no_grad():
            logits_K = model(input_ids=ids).logits[0]
        assert [column[row] for column in found] == pytest.approx(logits_K.tolist(), abs=1e-5)


def test_conversations_go_through_the_template_of_the_classifier(
    classifier: tuple[Any, Any],
) -> None:
    model, tokenizer = classifier
    scorer = ClassifierScorer(model, tokenizer)
    assert scorer.names == ["LABEL_0", "LABEL_1", "LABEL_2"]
    found = scorer([HELLO], [COMPLETIONS[0]])
    text = tokenizer.apply_chat_template([*HELLO, *COMPLETIONS[0]], tokenize=False)
    assert found == scorer([text], [""])


def test_policy_trains_on_the_labels_of_a_classifier(
    classifier: tuple[Any, Any], tmp_path: Path
) -> None:
    model, tokenizer = classifier
    passes: list[int] = []
    model.register_forward_hook(lambda *_: passes.append(1))
    columns = ModelColumns(ClassifierScorer(model, tokenizer), ["LABEL_0", "LABEL_2"]).functions
    trainer = trainer_of(tmp_path, columns, aggregation=mo_grpo())
    trainer.train()
    assert len(passes) == 2
    assert len(logged(trainer, "rewards/LABEL_2/mean")) == 2


def test_nothing_is_cut(classifier: tuple[Any, Any]) -> None:
    model, tokenizer = classifier
    scorer = ClassifierScorer(model, tokenizer)
    with pytest.raises(InputTooLong, match=r"completions\[1\] and its prompt have .* limit 64"):
        scorer(["a", "a"], ["b", "rain " * 100])
    with pytest.raises(InvalidRequest, match="1 names were given for 3 labels"):
        ClassifierScorer(model, tokenizer, names=["one"])


@pytest.mark.parametrize(
    "completion",
    [HELLO, [*COMPLETIONS[0], *COMPLETIONS[1]], [{"role": "assistant", "content": [{"text": ""}]}]],
    ids=["user", "two-turns", "parts"],
)
def test_what_is_not_one_answer_of_text_is_refused(completion: Any) -> None:
    with pytest.raises(InvalidRequest, match="assistant turn|text alone"):
        answer_text(completion)


def test_columns_that_the_model_does_not_give_are_refused() -> None:
    batch = {"prompts": PROMPTS, "completions": COMPLETIONS}
    (absent,) = ModelColumns(Counted(), ["absent"]).functions
    with pytest.raises(InvalidRequest, match="no column 'absent'"):
        absent(**batch)
    (short,) = ModelColumns(lambda *_: {"a": [1.0]}, ["a"]).functions
    with pytest.raises(InvalidRequest, match="1 rewards 'a' for 4 completions"):
        short(**batch)
    (broken,) = ModelColumns(lambda *_: {"a": [float("nan")] * 4}, ["a"]).functions
    with pytest.raises(NonFiniteScore, match="'a'"):
        broken(**batch)
    with pytest.raises(InvalidRequest, match="two reward columns"):
        ModelColumns(Counted(), ["length", "length"])
