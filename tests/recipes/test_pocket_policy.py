"""The recipe of pocket-policy from end to end on small data of our own, in the sources' shape."""

from __future__ import annotations

import gzip
import json
import random
from pathlib import Path

import numpy as np
import pytest

from recipes.pocket_policy.contrasted import learn_contrasts
from recipes.pocket_policy.conversations import MAX_PER_PROMPT, load_conversations
from recipes.pocket_policy.directed import EXAMPLES_PER_STEP, draw_examples, learn_examples
from recipes.pocket_policy.held_out import held_out_perplexity
from recipes.pocket_policy.labels import label_answers
from recipes.pocket_policy.language import learn_language
from recipes.pocket_policy.package import package
from recipes.pocket_policy.preferred import SETTINGS, last_samples, prefer
from recipes.pocket_policy.rule import ANGLES_DEG, RULE
from recipes.pocket_policy.sampled import examples_of_samples, sample_and_score
from recipes.pocket_policy.vocabulary import write_tokenizer
from steerward.models.source import weight_version
from steerward.policy.local.checkpoint import load_policy

LOOP = SETTINGS.model_copy(
    update={
        "iterations": 1,
        "prompts_per_iteration": 16,
        "directions": 2,
        "directions_per_prompt": 2,
        "candidates_per_prompt": 2,
        "max_tokens": 8,
        "require_finished": False,
        "evaluation_prompts": 2,
        "evaluation_directions": 2,
    }
)


def write_data(folder: Path) -> Path:
    rng = random.Random(0)
    words = ["rain", "film", "song", "tea", "dog", "sun", "red", "old"]

    def turn(role: str, count: int) -> dict[str, str]:
        return {"role": role, "content": " ".join(rng.choices(words, k=count))}

    rows = [
        {
            "source": "self_dialogue",
            "split": "test" if i % 10 == 9 else "train",
            "messages": [
                turn("user", 3),
                turn("assistant", rng.randint(2, 20)),
                turn("user", 3),
                turn("assistant", rng.randint(2, 20)),
            ],
        }
        for i in range(60)
    ]
    long = {"role": "assistant", "content": "x" * 700}
    rows.append({"source": "self_dialogue", "split": "train", "messages": [turn("user", 3), long]})
    same = {"role": "user", "content": "the same prompt"}
    rows += [
        {"source": "self_dialogue", "split": "train", "messages": [same, turn("assistant", 3)]}
        for _ in range(6)
    ]
    path = folder / "sft" / "self_dialogue.jsonl.gz"
    path.parent.mkdir(parents=True)
    path.write_bytes(gzip.compress("".join(json.dumps(row) + "\n" for row in rows).encode()))
    return folder


def test_conversations_are_short_and_of_their_split(tmp_path: Path) -> None:
    data = write_data(tmp_path)
    train, test = load_conversations(data), load_conversations(data, split="test")
    assert len(train) == 54 + MAX_PER_PROMPT
    assert len(test) == 6
    assert all(found.messages[-1]["role"] == "assistant" for found in [*train, *test])


def test_missing_data_is_said(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="no sft"):
        load_conversations(tmp_path)


def test_recipe_gives_a_policy_that_can_be_served(tmp_path: Path) -> None:
    data, work = write_data(tmp_path / "data"), tmp_path / "work"
    conversations = load_conversations(data)
    tokenizer = write_tokenizer(conversations, work)
    # A weight is one token, and so is each objective.
    text = RULE.condition(RULE.at_angle(-15)).system
    assert "97" in tokenizer.tokenize(text)
    assert "26" in tokenizer.tokenize(text)
    language = learn_language(conversations, tokenizer, work=work, steps=2, seed=0)
    answers = label_answers(conversations, work=work, seed=0)
    assert answers.rewards_NM.shape == (len(conversations), 2)
    again = label_answers(conversations, work=work, seed=0)
    assert np.array_equal(again.rewards_NM, answers.rewards_NM)
    count = 2 * EXAMPLES_PER_STEP
    directed = learn_examples(
        draw_examples(answers, tokenizer, count=count, seed=0),
        tokenizer,
        start=language,
        out=work / "directed",
        learning_rate=1e-3,
        seed=0,
    )
    first = package(directed, tokenizer, out=work / "before-samples")
    sample_and_score(first, conversations, work=work, num_prompts=6, seed=0)
    own = examples_of_samples(work, tokenizer, count=count, seed=0)
    assert len(own) == count
    directed = learn_examples(
        own, tokenizer, start=directed, out=work / "sampled", learning_rate=1e-3, seed=0
    )
    checkpoint = load_policy(str(package(directed, tokenizer, out=work / "policy")), device="cpu")
    assert checkpoint.rule == RULE
    assert checkpoint.defaults.temperature == 0.7
    found = held_out_perplexity(work / "policy", tokenizer, load_conversations(data, split="test"))
    assert found["answers"] == 6
    assert 1 < found["perplexity"] < 2 * len(tokenizer)
    preferred = prefer(
        work / "policy", conversations, answers, prompts="", work=work, settings=LOOP, seed=0
    )
    assert load_policy(str(preferred), device="cpu").rule == RULE
    assert not (preferred / "master").exists()
    assert weight_version(preferred) != weight_version(work / "policy")
    samples = last_samples(work, LOOP)
    assert len(samples) == 16 * 2 * 2
    assert any(sample.selected for sample in samples)
    contrasted = learn_contrasts(samples, tokenizer, start=preferred, work=work, seed=0)
    final = package(contrasted, tokenizer, out=work / "pocket-policy")
    assert load_policy(str(final), device="cpu").rule == RULE
    assert weight_version(final) != weight_version(preferred)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        assert (final / name).read_bytes() == (preferred / name).read_bytes()


def test_examples_of_a_direction_are_what_it_rewards(tmp_path: Path) -> None:
    data = write_data(tmp_path / "data")
    conversations = load_conversations(data)
    tokenizer = write_tokenizer(conversations, tmp_path)
    answers = label_answers(conversations, work=tmp_path, seed=0)
    examples = draw_examples(answers, tokenizer, count=len(ANGLES_DEG) * 40, seed=0)
    lengths = np.array([len(ids) - prompt for ids, prompt in examples])
    by_angle = lengths.reshape(40, len(ANGLES_DEG)).mean(axis=0)
    assert by_angle[-5:].mean() > by_angle[:5].mean() + 3
    unsteered = [ids for ids, _ in examples if "system" not in tokenizer.decode(ids)]
    assert 0.1 < len(unsteered) / len(examples) < 0.2
