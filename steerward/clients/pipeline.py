"""A server in the place of `transformers.pipeline("text-classification")`.

For RewardBench, RLHFlow's annotation scripts and whatever else calls such a pipeline with texts
that went through a chat template. Scores are raw and no text is ever cut: `max_length` and
`truncation` are taken and not obeyed, and what is too long raises.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any, Unpack

from steerward.clients._conversation import plain_answer, plain_prompt
from steerward.clients._rewards import Scorer, Settings, raising_scorer
from steerward.clients._samples import Sample, Scored, checked, sample_of
from steerward.clients._wire import DEFAULT_BASE_URL
from steerward.protocol.errors import InvalidRequest, brief
from steerward.protocol.transcripts import TemplateName, read_conversation

Conversation = str | Sequence[Mapping[str, Any]]
"""Rendered text, or messages that end with the answer."""


class RewardPipeline:
    """Called with conversations, returns a score each."""

    def __init__(self, scoring: Scorer, *, template: TemplateName | None, tokenizer: Any) -> None:
        self._scoring = scoring
        self._template: TemplateName | None = template
        self.tokenizer = tokenizer
        # RewardBench reads and sets the padding of the model, and moves it to its device.
        self.model = SimpleNamespace(config=SimpleNamespace(pad_token_id=None))

    def __call__(self, texts: Conversation | Sequence[Conversation], **options: Any) -> list[Any]:
        """Return `{"label", "score"}` for each conversation.

        With `top_k=None` or `return_all_scores=True`, a list each: the score first, then every
        objective by its name.

        Args:
            texts: One conversation as text, or several.
            options: As for transformers; what does not concern the scores is not read.

        Raises:
            InvalidRequest: If a function is to be applied to the scores, or the turns of a text
                cannot be told apart.
            SteerwardError: What the server or the connection failed with.
        """
        wanted = options.get("function_to_apply") or "none"
        if wanted != "none":
            raise InvalidRequest(
                f"function_to_apply is {brief(str(wanted))!r}; scores are raw here: give "
                '"none" and apply it to the scores',
                param="function_to_apply",
            )
        several = [texts] if isinstance(texts, str) else texts
        samples = [self._sample(text, place=f"texts[{i}]") for i, text in enumerate(several)]
        scored = checked(self._scoring.score(samples))
        if options.get("return_all_scores") or options.get("top_k", 1) is None:
            return [[_labelled(found), *_objectives(found)] for found in scored]
        return [_labelled(found) for found in scored]

    def _sample(self, text: Any, *, place: str) -> Sample:
        if not isinstance(text, str):
            turns = list(text)
            return Sample(plain_prompt(turns[:-1]), plain_answer(turns[-1:]))
        return sample_of(read_conversation(text, place=place, template=self._template))


def pipeline(
    url: str = DEFAULT_BASE_URL,
    *,
    template: TemplateName | None = None,
    tokenizer: Any = None,
    **settings: Unpack[Settings],
) -> RewardPipeline:
    """Return a pipeline in front of a server.

    Args:
        url: Where the server is.
        template: Which rendered the texts; None: the one that each begins with.
        tokenizer: Kept for callers that read its attributes.
        settings: `model`, `weights` or `direction`, `api_key`, `timeout_s`, `deadline_s`.

    Raises:
        InvalidRequest: If `on_error` is not "raise".
    """
    scoring = raising_scorer("a pipeline", url, **settings)
    return RewardPipeline(scoring, template=template, tokenizer=tokenizer)


def reward_bench_entry(
    url: str = DEFAULT_BASE_URL,
    *,
    template: TemplateName | None = None,
    **settings: Unpack[Settings],
) -> dict[str, Any]:
    """Return an entry for RewardBench's `REWARD_MODEL_CONFIG`.

    `--tokenizer` names the tokenizer whose chat template renders the conversations, and
    `template` is the name of that template here.

    Args:
        url: Where the server is.
        template: See `pipeline`.
        settings: See `pipeline`.
    """

    def model_builder(name: str, **options: Any) -> str:
        del options
        return name

    def pipeline_builder(task: str, *, model: Any, tokenizer: Any) -> RewardPipeline:
        del task, model
        return pipeline(url, template=template, tokenizer=tokenizer, **settings)

    return {
        "model_builder": model_builder,
        "pipeline_builder": pipeline_builder,
        "quantized": False,
        "custom_dialogue": False,
        "model_type": "Seq. Classifier",
    }


def _labelled(found: Scored) -> dict[str, Any]:
    return {"label": "score", "score": found.score}


def _objectives(found: Scored) -> list[dict[str, Any]]:
    return [{"label": name, "score": reward} for name, reward in found.rewards.items()]
