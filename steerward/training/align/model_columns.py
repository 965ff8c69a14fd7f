"""Reward columns of a model in this process that gives all objectives in one call.

A trainer asks for column after column; the model is asked once a batch, and the answer is kept
until the last column has had it. Multi-objective GRPO (arXiv:2503.21819) trains on such a model's
outputs. TRL itself takes a model as one reward, its first output.
"""

from __future__ import annotations

import math
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from steerward.models.chat import EncodedConversation
from steerward.models.packing import Group, group_conversations
from steerward.models.reward_model import RewardModel
from steerward.protocol.errors import InputTooLong, InvalidRequest, NonFiniteScore, brief
from steerward.training.align.grpo.checks import check_known, check_names
from steerward.training.align.turns import answer_text, prompt_turns

Rewards = Mapping[str, Sequence[float | None]]
"""One number a completion by column; None where a column does not apply."""
Scorer = Callable[[Sequence[Any], Sequence[Any]], Rewards]
"""Called with prompts and completions, as TRL has them."""

# Batches whose columns are not all asked for yet: training, evaluation, and some left behind.
_MAX_BATCHES = 8


@dataclass(slots=True, eq=False)
class _Batch:
    prompts: Sequence[Any]
    completions: Sequence[Any]
    rewards: Rewards
    taken: set[str] = field(default_factory=set[str])


class ModelColumns:
    """Reward functions by column name, which share one call of a model a batch.

    Args:
        scorer: Asked once a batch.
        names: Columns, in order; `scorer` gives at least these.
        prefix: Put before each name, for TRL's logs.

    Raises:
        InvalidRequest: If there is no column, or two have one name.
    """

    def __init__(self, scorer: Scorer, names: Sequence[str], *, prefix: str = "") -> None:
        check_names(names)
        self._scorer = scorer
        self._names = tuple(names)
        self._lock = threading.Lock()
        self._batches: deque[_Batch] = deque(maxlen=_MAX_BATCHES)
        self.functions = [self._function(name, prefix=prefix) for name in names]
        """One a column, in order, for `reward_funcs`."""

    def _function(self, name: str, *, prefix: str) -> Callable[..., list[float | None]]:
        def rewards(
            prompts: Sequence[Any], completions: Sequence[Any], **_: Any
        ) -> list[float | None]:
            return list(self._take(name, prompts, completions))

        rewards.__name__ = rewards.__qualname__ = f"{prefix}{name}"
        return rewards

    def _take(
        self, name: str, prompts: Sequence[Any], completions: Sequence[Any]
    ) -> Sequence[float | None]:
        """Return a column; one that had it before asks for the next step, anew."""
        with self._lock:
            for batch in self._batches:
                is_same = batch.prompts == prompts and batch.completions == completions
                if name not in batch.taken and is_same:
                    break
            else:
                batch = _Batch(prompts, completions, self._score(prompts, completions))
                self._batches.append(batch)
            batch.taken.add(name)
            if len(batch.taken) == len(self._names):
                self._batches.remove(batch)
            return batch.rewards[name]

    def _score(self, prompts: Sequence[Any], completions: Sequence[Any]) -> Rewards:
        rewards = self._scorer(prompts, completions)
        for name in self._names:
            found = rewards.get(name)
            if found is None or len(found) != len(completions):
                given = "no column" if found is None else f"{len(found)} rewards"
                raise InvalidRequest(
                    f"the model gave {given} {brief(name)!r} for {len(completions)} completions; "
                    "it has to give one a completion, or None",
                    param="names",
                )
            if any(value is not None and not math.isfinite(value) for value in found):
                raise NonFiniteScore(f"the model gave NaN or infinity as {brief(name)!r}")
        return rewards


class RewardModelScorer:
    """All objectives of a Steerward reward model by one forward pass a batch.

    Prompts that repeat next to each other are computed once.

    Args:
        model: In this process.
        with_score: Whether the checkpoint's own score is a column, ``score``, too.
    """

    def __init__(self, model: RewardModel, *, with_score: bool = False) -> None:
        self._model = model
        self._with_score = with_score
        self.names = [*model.objectives.names, *(["score"] if with_score else [])]
        """Of the columns, in order."""

    def __call__(self, prompts: Sequence[Any], completions: Sequence[Any]) -> Rewards:
        """Return the rewards of a batch; None for samples longer than the model reads.

        Nothing is cut; trainers are told how many rewards may be missing.

        Raises:
            InvalidRequest: If a sample is not text alone, or the model has no score.
        """
        groups: list[Group] = []
        places: list[int] = []
        for begin, end in _same_prompts(prompts):
            turns = prompt_turns(prompts[begin])
            answers = [answer_text(completion) for completion in completions[begin:end]]
            read = [self._encoded(turns, answer) for answer in answers]
            places += [begin + i for i, one in enumerate(read) if one is not None]
            groups.extend(group_conversations([one for one in read if one is not None]))
        return self._spread(places, groups, num=len(prompts))

    def _encoded(self, turns: Sequence[Any], answer: str) -> EncodedConversation | None:
        try:
            return self._model.encode(turns, [answer])[0]
        except InputTooLong:
            return None

    def _spread(self, places: Sequence[int], groups: Sequence[Group], *, num: int) -> Rewards:
        columns: dict[str, list[float | None]] = {name: [None] * num for name in self.names}
        if not places:
            return columns
        output = self._model.score(groups)
        known = dict(zip(self._model.objectives.names, output.rewards_NK.T.tolist(), strict=True))
        if self._with_score:
            if output.scores_N is None:
                raise InvalidRequest(
                    "this reward model has no score of its own; take its objectives", param="score"
                )
            known["score"] = output.scores_N.tolist()
        for name, values in known.items():
            for place, value in zip(places, values, strict=True):
                columns[name][place] = value
        return columns


def _same_prompts(prompts: Sequence[Any]) -> Iterator[tuple[int, int]]:
    """Yield where equal prompts begin and end that stand next to each other."""
    begin = 0
    for end in range(1, len(prompts) + 1):
        if end == len(prompts) or prompts[end] != prompts[begin]:
            yield begin, end
            begin = end


class ClassifierScorer:
    """All labels of a transformers sequence classifier by one forward pass a batch.

    Args:
        model: `AutoModelForSequenceClassification`, trained by regression.
        tokenizer: Its own; conversations go through its chat template.
        names: Of the labels, in order; None takes those of ``config.id2label``.
        max_tokens: Longest input; None takes the model's positions.

    Raises:
        InvalidRequest: If there are not as many names as labels.
    """

    def __init__(
        self,
        model: nn.Module,
        tokenizer: Any,
        *,
        names: Sequence[str] | None = None,
        max_tokens: int | None = None,
    ) -> None:
        config: Any = model.config
        self.names = list(names or [config.id2label[i] for i in range(config.num_labels)])
        """Of the columns, in order."""
        if len(self.names) != config.num_labels:
            raise InvalidRequest(
                f"{len(self.names)} names were given for {config.num_labels} labels", param="names"
            )
        self._model: Any = model.eval()
        self._tokenizer = tokenizer
        self._max_tokens = max_tokens or getattr(config, "max_position_embeddings", None)

    @torch.inference_mode()
    def __call__(self, prompts: Sequence[Any], completions: Sequence[Any]) -> Rewards:
        """Return the rewards of a batch.

        Raises:
            InvalidRequest: If a sample is not text alone.
            InputTooLong: If a sample is longer than the model reads; nothing is cut.
        """
        texts = [self._text(p, c) for p, c in zip(prompts, completions, strict=True)]
        batch = self._tokenizer(
            texts, return_tensors="pt", padding=True, padding_side="right", add_special_tokens=False
        )
        length = batch["attention_mask"].sum(dim=-1)
        longest = int(length.argmax())
        if self._max_tokens is not None and int(length[longest]) > self._max_tokens:
            raise InputTooLong(
                f"completions[{longest}] and its prompt have {int(length[longest]):,} tokens, "
                f"limit {self._max_tokens:,}; lower max_completion_length or drop long prompts",
                param=f"completions[{longest}]",
            )
        logits_NK: Tensor = self._model(**batch.to(self._model.device)).logits
        columns = logits_NK.float().T.tolist()
        return dict(zip(self.names, columns, strict=True))

    def _text(self, prompt: Any, completion: Any) -> str:
        if isinstance(prompt, str) and isinstance(completion, str):
            return prompt + completion
        answer = {"role": "assistant", "content": answer_text(completion)}
        return self._tokenizer.apply_chat_template([*prompt_turns(prompt), answer], tokenize=False)


def reward_model_columns(
    model: RewardModel,
    *,
    objectives: Sequence[str] | None = None,
    with_score: bool = False,
    prefix: str = "",
) -> list[Callable[..., list[float | None]]]:
    """Return a reward function for each objective of a reward model, one forward pass a batch.

    Args:
        model: In this process.
        objectives: Which, in order; None takes all.
        with_score: Whether the checkpoint's own score is a column, ``score``, too.
        prefix: Put before each name.

    Raises:
        UnknownObjective: If the model does not have one.
    """
    scorer = RewardModelScorer(model, with_score=with_score)
    if objectives is None:
        return ModelColumns(scorer, scorer.names, prefix=prefix).functions
    check_known(objectives, model.objectives.names, param="objectives")
    names = [*objectives, *(["score"] if with_score else [])]
    return ModelColumns(scorer, names, prefix=prefix).functions
