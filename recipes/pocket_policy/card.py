"""The model card of pocket-policy: every figure in it comes from the measurements of the run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from recipes.pocket_policy.contrasted import BETA, LAMBDA, ROWS_PER_PROMPT
from recipes.pocket_policy.conversations import MAX_TURN_CHARACTERS
from recipes.pocket_policy.directed import STRENGTH, WITHOUT_DIRECTION
from recipes.pocket_policy.language import POSITIONS
from recipes.pocket_policy.package import TEMPERATURE, TOP_P
from recipes.pocket_policy.preferred import SETTINGS
from recipes.pocket_policy.rule import RULE
from recipes.pocket_policy.sampled import SAMPLES

SOURCES = Path(__file__).with_name("sources.json")
PICTURE = "steering.png"

_CARD = """---
license: apache-2.0
language: en
library_name: steerward
tags: [policy, preference-direction, steerable]
---
# pocket-policy

A very small language model that reads a preference direction, in the manner of DPA
(arXiv:2402.18571): {parameters:.1f} million parameters, trained from random weights on public
conversations, up to {positions} tokens, English. It ships with Steerward so that steering can be
tried the minute it is installed. It makes small talk; it is not an assistant, knows next to
nothing, and often makes no sense.

Weight version `{weight_version}`.

## Steering

The system turn holds the direction, as two integers that are a unit vector times {scale}:

    {example}

The first is helpfulness and the second verbosity, as the reward model `pocket` rewards them.
Training covered -45 degrees (as much less verbosity as more helpfulness) to +45; requests beyond
are refused unless forced. `conditioning.json` holds the rule; send `direction`, or `angle`, and
Steerward writes the turn.

![What directions do]({picture})

Mean rewards on {num_prompts} prompts of the test split, which occur nowhere in training, in
standard deviations of the reward model's reference, with 95 % intervals by resampling prompts
(`{command}`):

{front}

{summary}

{gain}

Told to the policy alone (`prompt`), a direction moves verbosity with a rank correlation of
{correlation:.2f} over the ten directions; choosing among samples (`best_of`, `neighbours`) moves it
further.

Rewards are those of the reward model that also chose: more of them is not the same as better.
`verbosity` is the length of an answer on a logarithmic scale and easy to steer; `helpfulness` is
what a small reward model takes for it.

## Examples

Answers to the same prompts, one sample each, from the same measurement:

{examples}

## Limits

- It repeats what crowd workers said about films, music and sport. What it says as a fact is not.
- It can be rude, and it can take on any opinion. It was not trained to be safe.
- Conversations over {positions} tokens are refused.
- Its perplexity on {answers} unseen answers is {perplexity:.1f} by token of its own vocabulary.

## Training

`python -m recipes.pocket_policy --data DATA` (seed {seed}): {language_steps} steps on whole
conversations with turns of at most {characters} characters; one answer of each conversation scored
by `pocket`; {directed_steps} steps on answers drawn for directions: under direction v an answer
counts in proportion to exp({strength} v . z), z its rewards standardised within its source.
{without:.0%} of the examples have no direction. Then the policy answered {prompts:,} prompts of
the training text {samples} times each, in all directions; `pocket` scored these, and training went
on with them, drawn by the same rule within each prompt, and with a part of the examples before.
{loop}Sampling defaults: temperature {temperature}, top_p {top_p}. Every setting is in
`recipes/pocket_policy`.

## Data and licences

The weights are Apache-2.0. The data are not part of the package; their repositories on GitHub:

{sources}

Answers that models wrote are redistributed as their repositories did; the models' providers may
limit training competing models on them.
"""


# Of a policy that went through the loop of the jobs, and learned from its samples once more.
_LOOP = """
Then {iterations} iterations of rejection-sampling fine-tuning as the server's jobs do it, of which
the last was kept whatever it measured: {prompts:,} prompts each, {samples} answers to a prompt,
each under another of {directions} directions, and for every one of these the best of all {samples};
{sft_share:.0%} of what it learned were answers of the text, and a KL penalty of {kl_coef:g} held it
near its start. What the iterations did, on the prompts of the front
(`python -m benchmarks.rsf_front`):

{iterations_table}

{judges_table}

Last, the samples of the last two iterations once more, {rows_per_prompt} rows of each kind for
every prompt. Rows of the first kind have the prompt behind two directions, and the two samples
about which these disagree most; the policy learns to tell these apart by the direction (MAPL's loss
of inter rows, arXiv:2505.12845, with a weight of {weight:g}). Rows of the second kind have the best
and the worst sample under one direction (DPO, arXiv:2305.18290). beta is {beta:g} in both.

"""


def _loop(run: Mapping[str, Any]) -> str:
    if "rsf" not in run:
        return ""
    tables = run["rsf"]["tables"]
    return _LOOP.format(
        iterations=SETTINGS.iterations,
        prompts=SETTINGS.prompts_per_iteration,
        samples=SETTINGS.directions_per_prompt * SETTINGS.candidates_per_prompt,
        directions=SETTINGS.directions,
        sft_share=SETTINGS.sft_share,
        kl_coef=SETTINGS.training.kl_coef,
        iterations_table=_markdown(tables[0]),
        judges_table=_markdown(tables[-1]),
        rows_per_prompt=ROWS_PER_PROMPT,
        weight=LAMBDA,
        beta=BETA,
    )


def write_card(checkpoint: Path, run: Mapping[str, Any]) -> None:
    """Write the card and its report into a checkpoint.

    Args:
        checkpoint: Packaged policy.
        run: ``front`` (of benchmarks.steering_front), ``rsf`` (of benchmarks.rsf_front) if
            it went through the loop, ``held_out``, and the run's settings.
    """
    front = run["front"]
    tables = [_markdown(content) for content in front["tables"]]
    text = _CARD.format(
        parameters=run["parameters"] / 1e6,
        positions=POSITIONS,
        weight_version=run["weight_version"],
        scale=RULE.scale,
        example=RULE.condition(RULE.at_angle(-15)).system,
        picture=PICTURE,
        num_prompts=front["num_prompts"],
        command=run["command"],
        front=tables[0],
        summary=tables[1],
        gain=tables[2],
        examples=_examples(front["examples"]),
        correlation=front["rank_correlation"]["prompt"],
        answers=run["held_out"]["answers"],
        perplexity=run["held_out"]["perplexity"],
        seed=run["seed"],
        language_steps=run["language_steps"],
        directed_steps=run["directed_steps"],
        characters=MAX_TURN_CHARACTERS,
        strength=STRENGTH,
        without=WITHOUT_DIRECTION,
        prompts=run["sampled_prompts"],
        samples=SAMPLES,
        temperature=TEMPERATURE,
        top_p=TOP_P,
        loop=_loop(run),
        sources=_sources(),
    )
    (checkpoint / "README.md").write_text(text, encoding="utf-8")
    report = {key: value for key, value in run.items() if key not in ("front", "rsf")}
    report["front"] = {key: value for key, value in front.items() if key != "tables"}
    (checkpoint / "report.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


def _markdown(content: Mapping[str, Any]) -> str:
    lines = [content["columns"], ["---"] * len(content["columns"]), *content["rows"]]
    rows = "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
    return f"**{content['title']}**\n\n{rows}"


def _examples(examples: list[dict[str, Any]]) -> str:
    lines: list[str] = []
    for place, prompt in enumerate(examples[0]["prompts"]):
        lines.append(f"> {prompt}\n")
        for one in examples:
            lines.append(f"- {one['angle']:+d} degrees: {' '.join(one['texts'][place].split())}")
        lines.append("")
    return "\n".join(lines).rstrip()


def _sources() -> str:
    rows = ["| source | repository @ commit | licence | written by |", "| --- | --- | --- | --- |"]
    for name, one in json.loads(SOURCES.read_text()).items():
        place = f"{one['repository']} @ {one['commit']}"
        rows.append(f"| {name} | {place} | {one['licence']} | {one['written_by']} |")
    return "\n".join(rows)
