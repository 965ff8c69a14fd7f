"""One page about any set of runs side by side: rewards, fronts, hypervolume, curves, lengths.

Free of torch.
"""

from __future__ import annotations

import base64
import html
import itertools
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

from steerward.protocol.errors import InvalidRequest
from steerward.training.align.report.numbers import (
    MOST_FRONT_OBJECTIVES,
    Comparison,
    Interval,
    Volumes,
    compare,
    run_numbers,
    start_interval,
    volumes,
)
from steerward.training.align.report.plots import Curve, FrontPoint, draw_curves, draw_front
from steerward.training.align.report.runs import common_objectives, pooled, read_runs

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title><style>
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 64rem; margin: 2rem auto; }}
table {{ border-collapse: collapse; margin: 1rem 0; display: block; overflow-x: auto; }}
th, td {{ padding: .3rem .7rem; border-bottom: 1px solid #ccc; text-align: right; }}
th:first-child, td:first-child {{ text-align: left; }}
figure {{ display: inline-block; width: 31rem; max-width: 100%; margin: 0; }}
img {{ max-width: 100%; height: auto; }}
</style></head><body>
<h1>{title}</h1>
{body}
</body></html>
"""
_TITLE = "Runs side by side"

_ABOUT = """Intervals are 95 %, by resampling the {prompts} held-out prompts. Runs of one method and
name are one line here: the mean over their seeds, at the steps that all of them measured. A gain is
told in spreads, too: divided by the standard deviation over prompts of the start policy's rewards,
which is one unit an objective for all runs ({units}). Nothing else is normalised."""
_NO_UNITS = """ The start policy's rewards of {names} do not vary, so there are no spreads of them,
no worst gain, no best evaluation and no hypervolume."""
_BEST = """The best evaluation has the highest mean gain in spreads. It was chosen on the prompts it
is told of, so its gain is told a little too high. The worst gain is that of the objective that
gained least; its interval takes the least gain of each resample."""
_VOLUME = """The volume that the last means of a method's runs dominate, in spreads, above the
reference point {reference}. {origin} Volumes are comparable only with the same reference point,
units and number of runs: more runs cover more."""
_LENGTH = """No reward should be got by length alone: where rewards rise and answers grow or shrink
with them, look at the answers."""


def write_report(
    runs: Sequence[Path],
    out: Path,
    *,
    objectives: Sequence[str] | None = None,
    reference: Mapping[str, float] | None = None,
) -> dict[str, Any]:
    """Write one page about runs, and its numbers as JSON beside it.

    Args:
        runs: Their folders, finished or not.
        out: The page, `.html`; the numbers get its name with `.json`.
        objectives: To compare. Default: those of the runs, which must be the same.
        reference: Reward of each objective where hypervolumes begin. Default: the lowest of all
            last means and of the start, less one spread of the start policy.

    Returns:
        The numbers.

    Raises:
        DatasetRefused: If a folder is no run, or has no evaluation of its start.
        InvalidRequest: If runs or arguments do not fit together.
    """
    if out.suffix != ".html":
        raise InvalidRequest(f"the page is {out.name}; give it a name that ends in .html")
    read = read_runs(runs, objectives)
    names = list(objectives or common_objectives(read))
    comparison = compare(pooled(read, names), names, reference)
    found = [run_numbers(run, comparison) for run in comparison.runs]
    volume = volumes(comparison)
    units = dict(zip(names, comparison.units_K, strict=True))
    content = _as_json(
        {
            "objectives": names,
            "prompts": comparison.runs[0].rewards_EPK.shape[1],
            "start_spreads": units,
            "reference": _by_name(comparison),
            "runs": found,
            "hypervolume": volume,
        }
    )
    parts = [
        _about(comparison),
        _rewards_part(comparison, found),
        _fronts_part(comparison, found),
        _volume_part(comparison, volume, is_given=reference is not None),
        _curves_part(comparison, found),
        _length_part(comparison, found),
    ]
    out.parent.mkdir(parents=True, exist_ok=True)
    _write(out, _PAGE.format(title=_TITLE, body="\n".join(parts)))
    _write(out.with_suffix(".json"), json.dumps(content, indent=2, allow_nan=False) + "\n")
    return content


def _about(comparison: Comparison) -> str:
    units = zip(comparison.objectives, comparison.units_K, strict=True)
    text = _ABOUT.format(
        prompts=comparison.runs[0].rewards_EPK.shape[1],
        units=", ".join(f"{name} {_number(unit) or 'none'}" for name, unit in units),
    )
    flat = [n for n, u in zip(comparison.objectives, comparison.units_K, strict=True) if u is None]
    if flat:
        text += _NO_UNITS.format(names=", ".join(flat))
    header = ["run", "seeds", "last step", "folders"]
    rows = [
        [run.label, len(run.folders), run.steps[-1], ", ".join(f.name for f in run.folders)]
        for run in comparison.runs
    ]
    return _paragraph(text) + _table(header, rows)


def _rewards_part(comparison: Comparison, found: Sequence[Mapping[str, Any]]) -> str:
    header = ["run", "evaluation", "step"]
    for name in comparison.objectives:
        header += [name, f"{name}, gain in spreads"]
    header += ["worst gain in spreads", "of"]
    rows: list[list[object]] = []
    for run, numbers in zip(comparison.runs, found, strict=True):
        for which in ("start", "last", "best"):
            if (one := numbers[which]) is not None:
                rows.append([run.label, which, one["step"], *_gains(one, comparison.objectives)])
    return "<h2>Rewards</h2>\n" + _paragraph(_BEST) + _table(header, rows)


def _gains(evaluation: Mapping[str, Any], names: Sequence[str]) -> list[object]:
    cells: list[object] = []
    for name in names:
        cells += [_interval(evaluation["rewards"][name])]
        cells += [_interval(evaluation["gains_in_spreads"][name])]
    worst = evaluation["worst"]
    return [
        *cells,
        *(["", ""] if worst is None else [_interval(worst["gain_in_spreads"]), worst["objective"]]),
    ]


def _fronts_part(comparison: Comparison, found: Sequence[Mapping[str, Any]]) -> str:
    names = comparison.objectives
    if len(names) < 2:
        return ""
    if len(names) > MOST_FRONT_OBJECTIVES:
        return "<h2>Fronts</h2>\n" + _paragraph(
            f"Not drawn for {len(names)} objectives: name at most {MOST_FRONT_OBJECTIVES} of them."
        )
    pictures = [_front(comparison, found, pair) for pair in itertools.combinations(names, 2)]
    return "<h2>Fronts</h2>\n" + "\n".join(pictures)


def _front(
    comparison: Comparison, found: Sequence[Mapping[str, Any]], pair: tuple[str, str]
) -> str:
    points = [
        FrontPoint(run.method, run.name, *(numbers["last"]["rewards"][name] for name in pair))
        for run, numbers in zip(comparison.runs, found, strict=True)
    ]
    x, y = (start_interval(comparison, name) for name in pair)
    picture = draw_front(points, (x, y), labels=pair)
    told = "; ".join(
        f"{run.label} at {point.x.mean:.3f}, {point.y.mean:.3f}"
        for run, point in zip(comparison.runs, points, strict=True)
    )
    return _figure(picture, f"Mean reward of {pair[0]} and {pair[1]} at the last step: {told}")


def _volume_part(comparison: Comparison, found: Volumes | None, *, is_given: bool) -> str:
    if found is None:
        return ""
    reference = ", ".join(f"{n} {v:.3f}" for n, v in (_by_name(comparison) or {}).items())
    origin = (
        "It was given."
        if is_given
        else "It is the lowest of all last means and of the start, less one spread, so it depends "
        "on which runs are compared."
    )
    rows = [[method, _interval(one)] for method, one in found.methods.items()]
    rows.append(["start policy", _interval(found.start)])
    text = _paragraph(_VOLUME.format(reference=reference, origin=origin))
    return "<h2>Hypervolume</h2>\n" + text + _table(["method", "hypervolume"], rows)


def _curves_part(comparison: Comparison, found: Sequence[Mapping[str, Any]]) -> str:
    pictures: list[str] = []
    for name in comparison.objectives:
        curves = [
            Curve(run.label, run.steps, numbers["curves"][name])
            for run, numbers in zip(comparison.runs, found, strict=True)
        ]
        told = _ends_of(curves)
        pictures.append(
            _figure(draw_curves(curves, label=name), f"Mean reward of {name} over steps: {told}")
        )
    return "<h2>Curves</h2>\n" + "\n".join(pictures)


def _length_part(comparison: Comparison, found: Sequence[Mapping[str, Any]]) -> str:
    curves = [
        Curve(run.label, run.steps, numbers["characters"])
        for run, numbers in zip(comparison.runs, found, strict=True)
    ]
    rows = [
        [
            run.label,
            *(_interval(numbers[which]["characters"]) for which in ("start", "last")),
            _interval(numbers["last"]["characters_gain"]),
        ]
        for run, numbers in zip(comparison.runs, found, strict=True)
    ]
    picture = draw_curves(curves, label="characters of an answer")
    return (
        "<h2>Length</h2>\n"
        + _paragraph(_LENGTH)
        + _table(["run", "characters, start", "characters, last", "gain"], rows)
        + _figure(picture, f"Mean length of answers over steps: {_ends_of(curves)}")
    )


def _ends_of(curves: Sequence[Curve]) -> str:
    return "; ".join(
        f"{curve.label} from {curve.intervals[0].mean:.3f} to {curve.intervals[-1].mean:.3f}"
        for curve in curves
    )


def _by_name(comparison: Comparison) -> dict[str, float] | None:
    if comparison.reference_K is None:
        return None
    return dict(zip(comparison.objectives, comparison.reference_K, strict=True))


def _table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    head = "".join(f"<th>{html.escape(name)}</th>" for name in header)
    body = "\n".join(
        "<tr>" + "".join(f"<td>{html.escape(str(cell))}</td>" for cell in row) + "</tr>"
        for row in rows
    )
    return f"<table><tr>{head}</tr>\n{body}</table>\n"


def _paragraph(text: str) -> str:
    return f"<p>{html.escape(text)}</p>\n"


def _figure(svg: str, alternative: str) -> str:
    # As an image of its own: ids within one picture do not meet those of another, and no script
    # in it would run.
    data = base64.b64encode(svg.encode()).decode()
    text = html.escape(alternative)
    return f'<figure><img alt="{text}" src="data:image/svg+xml;base64,{data}"></figure>'


def _interval(one: Interval | None) -> str:
    return "" if one is None else f"{one.mean:.3f} ({one.low:.3f} to {one.high:.3f})"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _as_json(content: Any) -> Any:
    """Return intervals as objects."""
    if is_dataclass(content) and not isinstance(content, type):
        return _as_json(asdict(content))
    if isinstance(content, Mapping):
        return {key: _as_json(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [_as_json(value) for value in content]
    return content


def _write(path: Path, text: str) -> None:
    """Write a file in one step."""
    building = path.with_name(path.name + ".tmp")
    building.write_text(text, encoding="utf-8")
    os.replace(building, path)
