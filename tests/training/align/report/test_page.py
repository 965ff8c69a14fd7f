"""The page of a report: whole in itself, everything told in words too, nothing unescaped."""

from __future__ import annotations

import base64
import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

from steerward.protocol.errors import InvalidRequest
from steerward.training.align.report.page import write_report
from steerward.training.align.run_folder import EVALUATIONS_FILE, RunWriter, read_run
from tests.training.align.report.test_numbers import write_run


class Page(HTMLParser):
    """Tags of a page, and what refers to elsewhere."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.pictures: list[dict[str, str | None]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag == "img":
            self.pictures.append(dict(attrs))


@pytest.fixture
def folders(tmp_path: Path) -> list[Path]:
    gains = [{"kind": 1.0, "short": 0.2}, {"kind": 0.2, "short": 1.0}]
    return [
        write_run(tmp_path / "a", gains[0], method="modpo", name="w 0.1"),
        write_run(tmp_path / "b", gains[1], method="modpo", name="w 0.9", seed=1),
        write_run(tmp_path / "c", gains[1], method="modpo", name="w 0.9", seed=2),
        write_run(tmp_path / "d", {"kind": 0.5, "short": 0.5}, method="pama"),
    ]


def test_page_and_numbers_tell_the_same(folders: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "reports" / "report.html"
    content = write_report(folders, out)
    assert json.loads(out.with_suffix(".json").read_text()) == content
    assert [run["name"] for run in content["runs"]] == ["w 0.1", "w 0.9", "pama"]
    assert content["runs"][1]["seeds"] == 2
    assert content["prompts"] == 40
    last = content["runs"][0]["last"]["rewards"]["kind"]
    page = out.read_text()
    assert f"{last['mean']:.3f} ({last['low']:.3f} to {last['high']:.3f})" in page
    assert f"{content['hypervolume']['methods']['modpo']['mean']:.3f}" in page
    assert "kind 2.000, short 0.500" in page


def test_page_is_whole_in_itself_and_pictures_are_told_in_words(
    folders: list[Path], tmp_path: Path
) -> None:
    write_report(folders, tmp_path / "report.html")
    page = Page((tmp_path / "report.html").read_text())
    # One front, a curve an objective, and the lengths.
    assert len(page.pictures) == 4
    for picture in page.pictures:
        assert (picture["src"] or "").startswith("data:image/svg+xml;base64,")
        assert "modpo: w 0.1" in (picture["alt"] or "")
    assert not {"script", "link", "iframe"} & set(page.tags)


def test_names_from_files_are_never_markup(tmp_path: Path) -> None:
    name, objective = "<script>alert('&')</script>", "a$b_{<b>\n$"
    folder = write_run(tmp_path / "<i>run", {objective: 1.0, "_x": 1.0}, name=name)
    write_report([folder], tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text()
    page = Page(text)
    assert not {"script", "b", "i"} & set(page.tags)
    for picture in page.pictures:
        svg = base64.b64decode((picture["src"] or "").partition(",")[2]).decode()
        assert not re.search(r"<(script|b|i)\b", svg)


def test_same_runs_give_the_same_files(folders: list[Path], tmp_path: Path) -> None:
    for name in ("first", "second"):
        write_report(folders, tmp_path / name / "report.html")
    for name in ("report.html", "report.json"):
        first, second = (tmp_path / run / name for run in ("first", "second"))
        assert first.read_bytes() == second.read_bytes()


def test_run_that_goes_on_is_reported_as_far_as_it_is(folders: list[Path], tmp_path: Path) -> None:
    with (folders[3] / EVALUATIONS_FILE).open("a") as file:
        file.write('{"step": 15, "rewards": {"ki')
    content = write_report(folders, tmp_path / "report.html")
    assert content["runs"][2]["last"]["step"] == 10
    assert read_run(folders[3]).evaluations[-1].step == 10


def test_chosen_objectives_are_those_of_the_report(folders: list[Path], tmp_path: Path) -> None:
    content = write_report(folders, tmp_path / "report.html", objectives=["short"])
    assert content["objectives"] == ["short"]
    assert content["hypervolume"] is None
    assert "Fronts" not in (tmp_path / "report.html").read_text()


def test_objective_without_spread_is_said_plainly(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", {"kind": 1.0, "flat": 0.0})
    content = write_report([folder], tmp_path / "report.html")
    assert content["start_spreads"] == {"kind": 2.0, "flat": None}
    assert "rewards of flat do not vary" in (tmp_path / "report.html").read_text()


def test_many_objectives_have_curves_and_no_fronts(tmp_path: Path) -> None:
    names = [f"objective {k}" for k in range(8)]
    writer = RunWriter(tmp_path / "run", {"method": "m", "name": "m", "objectives": names})
    for step in (0, 1):
        rewards = {name: [float(step), step + 1.0] for name in names}
        writer.evaluate(step, rewards=rewards, characters=[1, 2])
    content = write_report([tmp_path / "run"], tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text()
    assert content["hypervolume"] is None
    assert "Not drawn for 8 objectives" in text
    assert len(Page(text).pictures) == 9


def test_page_must_be_named_as_one(folders: list[Path], tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match=r"ends in \.html"):
        write_report(folders, tmp_path / "report.json")


def test_report_loads_no_torch(folders: list[Path], tmp_path: Path) -> None:
    code = (
        "import sys\nfrom pathlib import Path\n"
        "from steerward.training.align.report.page import write_report\n"
        "write_report([Path(sys.argv[1])], Path(sys.argv[2]))\n"
        "assert not {'torch', 'transformers', 'trl'} & set(sys.modules)"
    )
    arguments = [str(folders[0]), str(tmp_path / "report.html")]
    subprocess.run([sys.executable, "-c", code, *arguments], check=True)
