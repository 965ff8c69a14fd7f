"""The baseline response of each prompt, which CGPO measures rewards against.

It is a column of the data (the answer of fine-tuning, or the preferred one), or a response of the
reference policy that is generated beforehand. Either way its reward, and whether it satisfies the
judges, are found once and kept as columns.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from datasets import Dataset

from steerward.protocol.errors import DatasetRefused, InvalidRequest, brief
from steerward.training.align.cgpo.judging import judge_batch
from steerward.training.align.cgpo.settings import REWARD_COLUMN, SATISFIED_COLUMN, TEXT_COLUMN
from steerward.training.align.cgpo.tasks import COLUMN, RewardFunction, Task, task_places
from steerward.training.align.measuring import called
from steerward.training.align.responses import draw_responses
from steerward.training.files import write_json

_MOST_DRAWS = 4


def gold_baselines(rows: Dataset, *, column: str) -> list[str]:
    """Return the baselines that a column holds: texts, or turns of which the last is the answer.

    Raises:
        DatasetRefused: If there is no such column, or a row of it holds no text.
    """
    if column not in rows.column_names:
        raise DatasetRefused(
            f"the rows have no column {brief(column)!r}, only {', '.join(rows.column_names)}"
        )
    texts = [_text(value) for value in rows[column]]
    for row, text in enumerate(texts):
        if not text or not text.strip():
            raise DatasetRefused(f"row {row} has no text in column {brief(column)!r}")
    return [text for text in texts if text]


def _text(value: Any) -> str | None:
    if isinstance(value, Sequence) and value and isinstance(value[-1], Mapping):
        value = value[-1].get("content")
    return value if isinstance(value, str) else None


def generated_baselines(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[Any],
    *,
    seed: int,
    max_tokens: int,
    temperature: float = 1.0,
    top_p: float = 1.0,
    policy_version: str = "",
    path: Path | None = None,
) -> list[str]:
    """Return a response of the reference policy to each prompt, the same for the same seed.

    Responses without a visible character are drawn again, a few times.

    Args:
        model: Reference policy.
        tokenizer: Its tokenizer.
        prompts: Texts, or lists of turns, which its chat template writes.
        seed: Of the sampling.
        max_tokens: Longest response, in tokens.
        temperature: Of the sampling; the default is ours, that of training.
        top_p: Of the sampling.
        policy_version: Of the weights, told in the file.
        path: File that keeps them; with one that was made of the same prompts and settings,
            nothing is generated.

    Raises:
        DatasetRefused: If the file was made of others, or a prompt gets only blank responses.
    """
    asked = {"seed": seed, "max_tokens": max_tokens, "temperature": temperature, "top_p": top_p}
    digest = hashlib.sha256(json.dumps(list(prompts), sort_keys=True).encode()).hexdigest()
    asked |= {"policy": policy_version, "prompts_sha256": digest}
    if path is not None and path.exists():
        return _kept(path, asked)
    texts = [""] * len(prompts)
    for draw in range(_MOST_DRAWS):
        blank = [i for i, text in enumerate(texts) if not text.strip()]
        drawn = draw_responses(
            model,
            tokenizer,
            [prompts[i] for i in blank],
            max_tokens=max_tokens,
            temperature=temperature,
            top_p=top_p,
            seed=seed + draw,
        )
        for i, text in zip(blank, drawn, strict=True):
            texts[i] = text
    for row, text in enumerate(texts):
        if not text.strip():
            raise DatasetRefused(
                f"row {row}: {_MOST_DRAWS} responses in a row were blank; remove the prompt or "
                "give its baseline in a column"
            )
    if path is not None:
        write_json(path, {**asked, "baselines": texts})
    return texts


def _kept(path: Path, asked: Mapping[str, Any]) -> list[str]:
    found = json.loads(path.read_text())
    for name, value in asked.items():
        if found.get(name) != value:
            raise DatasetRefused(
                f"{path} holds baselines of other {name}; remove the file to generate them again"
            )
    return found["baselines"]


def add_baselines(
    rows: Dataset,
    texts: Sequence[str],
    *,
    tasks: Sequence[Task],
    reward_funcs: Sequence[RewardFunction],
) -> Dataset:
    """Return rows with the columns of their baseline: text, reward, and whether judges pass it.

    Each baseline is scored once, by the reward of its row's task.

    Args:
        rows: With `prompt` and `task`.
        texts: Baseline of each row.
        tasks: Of the run.
        reward_funcs: Reward columns of TRL; called without the state of a trainer.

    Raises:
        DatasetRefused: If rows and texts differ in number, or a reward is missing or not finite.
        InvalidRequest: If a task's reward is not among the functions.
    """
    if len(texts) != len(rows):
        raise DatasetRefused(f"there are {len(rows)} rows and {len(texts)} baselines")
    prompts = list(rows["prompt"])
    chats = [not isinstance(prompt, str) for prompt in prompts]
    completions = [
        [{"role": "assistant", "content": text}] if chat else text
        for text, chat in zip(texts, chats, strict=True)
    ]
    records = [dict(row) for row in rows]  # pyright: ignore
    places = task_places([row.get(COLUMN) for row in records], tasks)
    rewards = [math.nan] * len(rows)
    for place, task in enumerate(tasks):
        own = [i for i, found in enumerate(places) if found == place]
        function = _named(reward_funcs, task)
        taken = [(prompts[i], completions[i], records[i]) for i in own]
        for i, reward in zip(own, _rewards(function, taken), strict=True):
            if reward is None or not math.isfinite(reward):
                raise DatasetRefused(
                    f"the baseline of row {i} has {brief(task.reward)} {reward}; give another one"
                )
            rewards[i] = reward
    verdicts = judge_batch(tasks, places, prompts=prompts, completions=completions, rows=records)
    columns = {TEXT_COLUMN: list(texts), REWARD_COLUMN: rewards}
    columns[SATISFIED_COLUMN] = verdicts.satisfied
    kept = rows.remove_columns([name for name in columns if name in rows.column_names])
    for name, values in columns.items():
        kept = kept.add_column(name, values)  # pyright: ignore
    return kept


def _named(functions: Sequence[RewardFunction], task: Task) -> RewardFunction:
    for function in functions:
        if function.__name__ == task.reward:
            return function
    raise InvalidRequest(
        f"task {brief(task.name)!r} has reward {brief(task.reward)!r}, and the reward columns are "
        f"{', '.join(brief(function.__name__) for function in functions)}",
        param="reward",
    )


def _rewards(
    function: RewardFunction, taken: Sequence[tuple[Any, Any, Mapping[str, Any]]]
) -> Sequence[float | None]:
    if not taken:
        return []
    names = [name for name in taken[0][2] if name not in ("prompt", "completion")]
    return called(
        function,
        prompts=[prompt for prompt, _, _ in taken],
        completions=[completion for _, completion, _ in taken],
        **{name: [row[name] for _, _, row in taken] for name in names},
    )
