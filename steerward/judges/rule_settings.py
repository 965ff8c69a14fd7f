"""Settings of the judges that are rules."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, Field

from steerward.judges.answer import ExactAnswer, NumericAnswer
from steerward.judges.code_test import CodeTests
from steerward.judges.instruction_following import InstructionFollowing
from steerward.judges.json_schema import JsonSchema
from steerward.judges.judge import Judge, checked_name
from steerward.judges.labels import LabelProbabilities
from steerward.judges.sandbox import Isolation, Limits
from steerward.judges.text_rule import Keywords, Language, Length, Pattern
from steerward.judges.threshold import RewardColumn
from steerward.protocol.wire import RequestModel

Name = Annotated[str, Field(min_length=1)]
JudgeName = Annotated[str, AfterValidator(checked_name)]
Size = Annotated[int, Field(ge=0)]
Count = Annotated[int, Field(ge=1)]
Seconds = Annotated[float, Field(gt=0)]

_LIMITS = Limits()
_MUST_ISOLATE = CodeTests().must_isolate


class RuleSettings(RequestModel):
    """A judge whose arguments are the fields of its settings."""

    builds: ClassVar[Callable[..., Judge]]

    def build(
        self,
        *,
        columns: Mapping[str, RewardColumn],  # noqa: ARG002  # of those that need them
        models: Mapping[str, LabelProbabilities],  # noqa: ARG002
    ) -> Judge:
        """Return the judge.

        Raises:
            InvalidRequest: If the settings do not go together.
        """
        return type(self).builds(**self.arguments())

    def arguments(self) -> dict[str, Any]:
        """Return the judge's arguments."""
        given = {name: getattr(self, name) for name in type(self).model_fields if name != "type"}
        return {k: tuple(v) if isinstance(v, list) else v for k, v in given.items()}


class ExactAnswerSettings(RuleSettings):
    """The final answer is the row's gold answer."""

    builds = ExactAnswer
    type: Literal["exact_answer"]
    name: JudgeName = "exact_answer"
    """Under which verdicts are logged."""
    column: Name = "answer"
    """Holds the gold answer, or a list of answers of which each is right."""
    without_mark: Literal["completion", "last_line"] = "completion"
    """What the answer is where neither a box of LaTeX nor four # mark it."""
    is_case_sensitive: bool = False
    """Whether capitals are compared."""


class NumericAnswerSettings(RuleSettings):
    """The last number, or the marked one, is the row's gold answer."""

    builds = NumericAnswer
    type: Literal["numeric_answer"]
    name: JudgeName = "numeric_answer"
    """Under which verdicts are logged."""
    column: Name = "answer"
    """Holds the gold answer: a number, or text that ends in one."""
    absolute_tolerance: Annotated[float, Field(ge=0)] = 1e-6
    """Largest difference that passes."""
    relative_tolerance: Annotated[float, Field(ge=0)] = 0.0
    """Largest difference that passes, as a share of the gold answer."""


class LengthSettings(RuleSettings):
    """The length is within limits, both included."""

    builds = Length
    type: Literal["length"]
    name: JudgeName = "length"
    """Under which verdicts are logged."""
    unit: Literal["characters", "words"] = "words"
    """What is counted."""
    minimum: Size | None = None
    """Smallest length that passes."""
    maximum: Size | None = None
    """Largest length that passes."""
    minimum_column: Name | None = None
    """Holds a row's own smallest length."""
    maximum_column: Name | None = None
    """Holds a row's own largest length."""


class KeywordsSettings(RuleSettings):
    """Every required keyword is there, and no forbidden one."""

    builds = Keywords
    type: Literal["keywords"]
    name: JudgeName = "keywords"
    """Under which verdicts are logged."""
    required: list[str] = []
    """Keywords that must be there."""
    forbidden: list[str] = []
    """Keywords that must not."""
    required_column: Name | None = None
    """Holds a row's own required keywords: a text or a list of texts."""
    forbidden_column: Name | None = None
    """Holds a row's own forbidden keywords."""
    are_whole_words: bool = True
    """Whether a keyword inside another word does not count."""
    is_case_sensitive: bool = False
    """Whether capitals are compared."""


class PatternSettings(RuleSettings):
    """A regular expression matches."""

    builds = Pattern
    type: Literal["pattern"]
    name: JudgeName = "pattern"
    """Under which verdicts are logged."""
    pattern: str | None = None
    """For all rows, in the syntax of the package regex, which is that of Python and more; at most
    1,000 characters."""
    column: Name | None = None
    """Holds a row's own expression."""
    is_whole: bool = False
    """Whether the whole completion must match, and not a part of it."""
    must_match: bool = True
    """False passes what does not match."""


class LanguageSettings(RuleSettings):
    """The completion is in a language."""

    builds = Language
    type: Literal["language"]
    name: JudgeName = "language"
    """Under which verdicts are logged."""
    language: Name | None = None
    """ISO 639-1 code for all rows, such as en."""
    column: Name | None = None
    """Holds a row's own code."""


class JsonSchemaSettings(RuleSettings):
    """The completion is JSON that a schema allows."""

    builds = JsonSchema
    type: Literal["json_schema"]
    name: JudgeName = "json_schema"
    """Under which verdicts are logged."""
    schema_text: str | None = Field(default=None, alias="schema")
    """For all rows, as JSON text of at most 64 KiB."""
    column: Name | None = "json_schema"
    """Holds a row's own schema, best as JSON text."""

    def arguments(self) -> dict[str, Any]:
        """Return the judge's arguments."""
        return {"name": self.name, "schema": self.schema_text, "column": self.column}


class InstructionFollowingSettings(RuleSettings):
    """Every verifiable instruction of the row is met."""

    builds = InstructionFollowing
    type: Literal["instruction_following"]
    name: JudgeName = "instruction_following"
    """Under which verdicts are logged."""
    column: Name = "instructions"
    """Holds a list of instructions, each with kind and arguments."""
    ids_column: Name = "instruction_id_list"
    """Holds the ids of IFEval's rows."""
    arguments_column: Name = "kwargs"
    """Holds their arguments."""
    is_loose: bool = False
    """Whether one of the eight loose variants of a completion is enough."""


class CodeTestsSettings(RuleSettings):
    """The completion's program passes the row's unit tests, in a sandbox."""

    builds = CodeTests
    type: Literal["code_tests"]
    name: JudgeName = "code_tests"
    """Under which verdicts are logged."""
    column: Name = "unit_tests"
    """Holds Python source that raises where a test fails, or a list of such."""
    setup_column: Name | None = None
    """Holds source that runs before the tests."""
    entry_point_column: Name | None = None
    """Holds the name of the function that tests in HumanEval's form check."""
    which: Literal["first", "last"] = "last"
    """Which fenced block is the program, if there are several."""
    cpu_s: Count = _LIMITS.cpu_s
    """Seconds of CPU of each process of a program."""
    wall_s: Seconds = _LIMITS.wall_s
    """Seconds from a program's start to its end."""
    memory_bytes: Count = _LIMITS.memory_bytes
    """Address space of each process."""
    file_bytes: Count = _LIMITS.file_bytes
    """Size of each file, and of all where files are isolated."""
    processes: Count = _LIMITS.processes
    """Processes and threads of a program at once."""
    must_isolate: list[Isolation] = list(_MUST_ISOLATE)
    """Without which no program is run, and the judge fails: network, files, processes, user,
    messages, system_calls. An empty list runs programs with what isolation there is, on purpose:
    they may then read and write this user's files, use the network and outlive the run."""
    num_workers: Count = 4
    """Programs that run at once."""

    def arguments(self) -> dict[str, Any]:
        """Return the judge's arguments."""
        given = super().arguments()
        names = ("cpu_s", "wall_s", "memory_bytes", "file_bytes", "processes")
        limits = Limits(**{name: given.pop(name) for name in names})
        return {**given, "limits": limits}
