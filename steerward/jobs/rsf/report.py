"""One page with what a job did: the fronts of all iterations, and a table."""

from __future__ import annotations

import html
import io
from collections.abc import Mapping, Sequence
from typing import Any

from steerward.jobs.disk import write_whole
from steerward.jobs.rsf.evaluation import Evaluation, evaluate
from steerward.jobs.rsf.samples import read_samples
from steerward.jobs.rsf.workspace import Workspace
from steerward.protocol.conditioning import ConditioningRule
from steerward.protocol.fine_tuning import IterationProgress

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title><style>
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; }}
table {{ border-collapse: collapse; margin: 1rem 0; }}
th, td {{ padding: .3rem .7rem; border-bottom: 1px solid #ccc; text-align: right; }}
th:first-child, td:first-child {{ text-align: left; }}
svg {{ max-width: 100%; height: auto; }}
</style></head><body>
<h1>{title}</h1>
{body}
</body></html>
"""


def write_report(workspace: Workspace, rule: ConditioningRule, last: int) -> None:
    """Write the page of a job.

    Args:
        workspace: With all iterations done.
        rule: How the policy reads a direction.
        last: Iteration.
    """
    history: list[IterationProgress] = []
    evaluations: dict[int, Evaluation] = {}
    for number in range(last + 1):
        folder = workspace.iteration(number)
        history.append(folder.progress(number))
        if folder.evaluation.exists():
            rows = read_samples(folder.evaluation)
            found = evaluate(rows, len({row.direction_index for row in rows}))
            if found is not None:
                evaluations[number] = found
    parts = [_history_table(history)]
    if evaluations:
        names = [rule.reward_names.get(name, name) for name in rule.objectives]
        parts.append(_evaluation_part(evaluations, names))
    page = _PAGE.format(title="Rejection-sampling fine-tuning", body="\n".join(parts))
    write_whole(workspace.report, lambda path: path.write_text(page, encoding="utf-8"))


def _history_table(history: Sequence[IterationProgress]) -> str:
    names = list(next((one.rewards for one in history if one.rewards), {}))
    header = ["iteration", "sampled", "accepted", "loss", "KL", "seconds"]
    header += [f"{name}, sampled" for name in names] + [f"{name}, selected" for name in names]
    rows = [
        [
            one.iteration,
            f"{one.sampled:,}",
            f"{one.accepted:,}",
            _number(one.loss),
            _number(one.kl),
            f"{sum(one.seconds.values()):.0f}",
            *(_number(one.rewards.get(name)) for name in names),
            *(_number(one.selected_rewards.get(name)) for name in names),
        ]
        for one in history
    ]
    return "<h2>Iterations</h2>\n" + _table(header, rows)


def _evaluation_part(evaluations: Mapping[int, Evaluation], names: Sequence[str]) -> str:
    prompts = next(iter(evaluations.values())).prompts
    header = ["iteration", "direction score", "95 %", "own score", "characters", "repetition"]
    header.append("distinct pairs of words")
    rows = [
        [
            number if number else "start",
            _number(found.direction_score.mean),
            f"{found.direction_score.low:.3f} to {found.direction_score.high:.3f}",
            _number(found.score),
            f"{found.characters:.0f}",
            _number(found.repetition),
            _number(found.distinct),
        ]
        for number, found in evaluations.items()
    ]
    return "\n".join(
        [
            f"<h2>Measured on {prompts} prompts</h2>",
            "<p>The direction score is v&nbsp;&middot;&nbsp;r, mean over directions. What "
            "stands to the right of it was not selected by: if it gets worse while the direction "
            "score rises, the reward model is being exploited. The reward model's own score tells "
            "least of it: it is a gated sum of the same rewards.</p>",
            _table(header, rows),
            _front(evaluations, names),
        ]
    )


def _front(evaluations: Mapping[int, Evaluation], names: Sequence[str]) -> str:
    """Return a picture: of two objectives the fronts, else the scores by direction."""
    # Heavy, and only for this.
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 6), layout="constrained")
    axes: Any = figure.subplots()
    colors = colormaps["viridis"]
    for place, (number, found) in enumerate(evaluations.items()):
        color = colors(0.9 * (1 - place / max(1, len(evaluations) - 1)))
        label = f"iteration {number}" if number else "start"
        if len(names) == 2:
            x, y = ([point.rewards[name] for point in found.points] for name in names)
            axes.errorbar(
                [one.mean for one in x],
                [one.mean for one in y],
                xerr=[[one.mean - one.low for one in x], [one.high - one.mean for one in x]],
                yerr=[[one.mean - one.low for one in y], [one.high - one.mean for one in y]],
                **{"color": color, "label": label, "marker": "o", "elinewidth": 0.6},
            )
        else:
            scores = [point.direction_score.mean for point in found.points]
            axes.plot(range(len(scores)), scores, color=color, label=label, marker="o")
    axes.set_xlabel(f"{names[0]} (mean reward)" if len(names) == 2 else "direction")
    axes.set_ylabel(f"{names[1]} (mean reward)" if len(names) == 2 else "direction score")
    axes.legend()
    axes.grid(alpha=0.3)
    text = io.StringIO()
    figure.savefig(text, format="svg")
    return "<svg" + text.getvalue().partition("<svg")[2]


def _table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    head = "".join(f"<th>{html.escape(name)}</th>" for name in header)
    body = "".join(
        "<tr>" + "".join(f"<td>{html.escape(str(cell))}</td>" for cell in row) + "</tr>"
        for row in rows
    )
    return f"<table><tr>{head}</tr>{body}</table>"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"
