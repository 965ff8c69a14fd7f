"""What is known of published checkpoints that their files do not say.

Objective names and rating scales come from the models' own documentation; a scale is given only
where the inverse of the label map is documented. Sources: ArmoRM (arXiv:2406.12845) model card
and its authors' answers, DPA (arXiv:2402.18571) repository.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from steerward.protocol.objectives import Objective, RatingScale

_HELPSTEER = RatingScale(label="0..4", multiplier=5.0, offset=-0.5)
_ULTRAFEEDBACK_OVERALL = RatingScale(label="1..10", multiplier=10.0, offset=0.5)
_IS_SAFE = RatingScale(label="0..1")
# DPA's reward model speaks on 0..100: the same bin centres, times 100.
_HELPSTEER_OF_100 = RatingScale(label="0..4", multiplier=0.05, offset=-0.5)

_HELPSTEER_NAMES = (
    "helpsteer-helpfulness",
    "helpsteer-correctness",
    "helpsteer-coherence",
    "helpsteer-complexity",
    "helpsteer-verbosity",
)
_ULTRAFEEDBACK_NAMES = (
    "ultrafeedback-overall_score",
    "ultrafeedback-instruction_following",
    "ultrafeedback-truthfulness",
    "ultrafeedback-honesty",
    "ultrafeedback-helpfulness",
)
_ARMORM_NAMES = (
    *_HELPSTEER_NAMES,
    *_ULTRAFEEDBACK_NAMES,
    "beavertails-is_safe",
    "prometheus-score",
    "argilla-overall_quality",
    "argilla-judge_lm",
    "code-complexity",
    "code-style",
    "code-explanation",
    "code-instruction-following",
    "code-readability",
)

# One literal string, not a chat: single turn only.
_DPA_TEMPLATE = (
    "{% if messages | length != 2 %}"
    "{{ raise_exception('this reward model scores one user turn and one answer') }}"
    "{% endif %}"
    "[INST] You must read the following conversation carefully and rate the assistant's response "
    "from score 0-100 in these aspects: helpfulness, correctness, coherence, honesty, complexity, "
    "verbosity\n\nUser: {{ messages[0]['content'] }}\n\n"
    "Assistant: {{ messages[1]['content'] }} [/INST]"
)


@dataclass(frozen=True, slots=True)
class Preset:
    """Objectives of a published checkpoint, and its template where it is not a chat template."""

    objectives: tuple[Objective, ...]
    template: str | None = None


def _objectives(
    names: Sequence[str], scales: dict[str, RatingScale] | None = None
) -> tuple[Objective, ...]:
    return tuple(Objective(name=name, rating=(scales or {}).get(name)) for name in names)


PRESETS: dict[str, Preset] = {
    "RLHFlow/ArmoRM-Llama3-8B-v0.1": Preset(
        _objectives(
            _ARMORM_NAMES,
            {
                **dict.fromkeys(_HELPSTEER_NAMES, _HELPSTEER),
                "ultrafeedback-overall_score": _ULTRAFEEDBACK_OVERALL,
                "beavertails-is_safe": _IS_SAFE,
            },
        )
    ),
    "nicolinho/QRM-Llama3.1-8B": Preset(_objectives(_ARMORM_NAMES)),
    "nicolinho/QRM-Llama3.1-8B-v2": Preset(_objectives(_ARMORM_NAMES)),
    "LxzGordon/URM-LLaMa-3.1-8B": Preset(
        _objectives(("helpfulness", "correctness", "coherence", "complexity", "verbosity"))
    ),
    "RLHFlow/RewardModel-Mistral-7B-for-DPA-v1": Preset(
        _objectives(
            (*_HELPSTEER_NAMES, *_ULTRAFEEDBACK_NAMES),
            dict.fromkeys(_HELPSTEER_NAMES, _HELPSTEER_OF_100),
        ),
        template=_DPA_TEMPLATE,
    ),
}

_CACHE_FOLDER = re.compile(r"models--([^/]+)--([^/]+)/snapshots/")


def find_preset(source: str, folder: Path, *, num_objectives: int | None = None) -> Preset | None:
    """Return what is known of a checkpoint, or None.

    A local copy is recognised by the name of its folder, or by its place in the hub's cache; a
    preset with another number of objectives than the heads have is not taken.
    """
    hub_id = source.partition("@")[0]
    if cached := _CACHE_FOLDER.search(f"{folder.absolute().as_posix()}/"):
        hub_id = f"{cached[1]}/{cached[2]}"
    preset = PRESETS.get(hub_id)
    if preset is None:
        by_name = {known.partition("/")[2]: value for known, value in PRESETS.items()}
        preset = by_name.get(folder.absolute().name)
    if preset is None or num_objectives not in (None, len(preset.objectives)):
        return None
    return preset
