"""Judges as a run needs them: with the models that they ask, and as reward columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from accelerate import PartialState
from transformers import AutoModelForCausalLM

from steerward.judges.judge import Judge
from steerward.judges.settings import from_settings
from steerward.models.pretrained import load_pretrained, load_tokenizer
from steerward.models.source import resolve_source
from steerward.protocol.alignment import SCORE
from steerward.protocol.errors import InvalidRequest, brief
from steerward.training.align.cgpo.label_probabilities import CausalLabelProbabilities
from steerward.training.align.columns import RewardSource
from steerward.training.align.measuring import RewardFunction
from steerward.training.sft_policy import stored_dtype, uses_bfloat16


def judge_models(judges: Sequence[Mapping[str, Any]]) -> dict[str, CausalLabelProbabilities]:
    """Return the language models, by their names, that judges without a URL ask in this process.

    Raises:
        NotFound: If there is no such checkpoint.
        CheckpointRefused: If one does not load.
    """
    asked = [one for one in judges if one.get("type") == "language_model" and not one.get("url")]
    return {name: _model(name) for name in {str(one.get("model")) for one in asked}}


def _model(name: str) -> CausalLabelProbabilities:
    folder = resolve_source(name)
    device = PartialState().device
    assert isinstance(device, torch.device)
    dtype = stored_dtype(folder) if uses_bfloat16(device) else torch.float32
    model = load_pretrained(AutoModelForCausalLM, folder, what="judge", dtype=dtype)
    model.to(device)  # pyright: ignore[reportArgumentType] (stub of another method)
    return CausalLabelProbabilities(model.eval(), load_tokenizer(folder))


def with_rules(source: RewardSource, rules: Mapping[str, Mapping[str, Any]]) -> RewardSource:
    """Return a source of rewards that has those of judges too.

    Args:
        source: Of all other objectives.
        rules: Settings of a judge by the name of its column.

    Raises:
        InvalidRequest: If a judge's settings are wrong, or it has the name of the gated score.
    """
    if not rules:
        return source
    if SCORE in rules:
        raise InvalidRequest(
            f"a rule has the name {SCORE!r}, which is the reward model's; name it otherwise"
        )
    models = judge_models(list(rules.values()))
    columns = {
        name: _column(name, from_settings([rule], models=models)[0]) for name, rule in rules.items()
    }

    def joined(names: Sequence[str]) -> Sequence[RewardFunction]:
        others = [name for name in names if name not in columns]
        found = dict(zip(others, source(others), strict=True)) if others else {}
        return [columns.get(name) or found[name] for name in names]

    return joined


def _column(name: str, judge: Judge) -> RewardFunction:
    def column(
        prompts: Sequence[Any], completions: Sequence[Any], **given: Any
    ) -> list[float | None]:
        rows = [
            {key: values[i] for key, values in given.items() if _is_column(values, len(prompts))}
            for i in range(len(prompts))
        ]
        verdicts = judge.judge(prompts, completions, rows=rows)
        failed = sum(verdict == -1 for verdict in verdicts)
        if failed == len(verdicts):
            raise InvalidRequest(
                f"the rule {brief(name)!r} could judge none of {failed} completions; look at its "
                "settings and at the column that it reads"
            )
        return [None if verdict in (None, -1) else float(verdict) for verdict in verdicts]

    column.__name__ = column.__qualname__ = name
    return column


def _is_column(values: Any, num: int) -> bool:
    return isinstance(values, list | tuple) and len(values) == num
