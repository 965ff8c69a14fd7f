"""Judges: whether a completion satisfies a rule, and mixtures of them (CGPO)."""

from steerward.judges.answer import ExactAnswer, NumericAnswer
from steerward.judges.code_test import CodeTests
from steerward.judges.instruction_following import InstructionFollowing
from steerward.judges.json_schema import JsonSchema
from steerward.judges.judge import Judge, JudgeFailed, Sample, SampleJudge, Verdict
from steerward.judges.labels import LabelProbabilities, ServerLabels
from steerward.judges.llm import LanguageModelJudge
from steerward.judges.mixture import Judged, Mixture
from steerward.judges.settings import (
    JudgeSettings,
    MixtureSettings,
    from_settings,
    mixture_from_settings,
)
from steerward.judges.templates import TEMPLATES, Template
from steerward.judges.text_rule import Keywords, Language, Length, Pattern
from steerward.judges.threshold import RewardThreshold

__all__ = [
    "TEMPLATES",
    "CodeTests",
    "ExactAnswer",
    "InstructionFollowing",
    "JsonSchema",
    "Judge",
    "JudgeFailed",
    "JudgeSettings",
    "Judged",
    "Keywords",
    "LabelProbabilities",
    "Language",
    "LanguageModelJudge",
    "Length",
    "Mixture",
    "MixtureSettings",
    "NumericAnswer",
    "Pattern",
    "RewardThreshold",
    "Sample",
    "SampleJudge",
    "ServerLabels",
    "Template",
    "Verdict",
    "from_settings",
    "mixture_from_settings",
]
