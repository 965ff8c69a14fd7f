"""What people see of a run, from the lines of its process."""

from __future__ import annotations

from pydantic import BaseModel

from steerward.jobs.align.history import History
from steerward.jobs.align.tracking import Tracking
from steerward.protocol.align_work import AlignDone, AlignMeasured, AlignNoted, AlignStep
from steerward.protocol.alignment import GrpoSettings
from steerward.protocol.fine_tuning import IterationProgress
from tests.jobs.align.telling import Told


def line(value: BaseModel) -> bytes:
    return value.model_dump_json().encode() + b"\n"


def step(number: int, steps: int = 200) -> bytes:
    return line(AlignStep(step=number, steps=steps, metrics={"loss": 0.5}))


def test_steps_are_counted_and_a_share_of_them_is_told() -> None:
    told = Told()
    tracking = Tracking(GrpoSettings(evaluation_steps=100), told)
    tracking.begin()
    for number in range(1, 201):
        tracking.hear(step(number))
    assert (told.progresses[-1].done, told.progresses[-1].total) == (200, 200)
    assert (told.progresses[-1].steps_per_s or 0) > 0
    assert [one["step"] for one in told.metrics] == [*range(4, 201, 4)]
    assert told.metrics[0] == {"step": 4, "total_steps": 200, "loss": 0.5}


def test_an_evaluation_is_a_row_of_the_history_and_an_event() -> None:
    told = Told()
    earlier = History(2)
    earlier.add(IterationProgress(iteration=0, rewards={"help": 0.1}))
    tracking = Tracking(GrpoSettings(evaluation_steps=2), told, earlier)
    tracking.hear(step(2, steps=20))
    assert told.progresses[-1].step == "evaluating"
    tracking.hear(line(AlignMeasured(step=2, rewards={"help": 0.25})))
    last = told.progresses[-1]
    assert last.step == "training"
    assert [(one.iteration, one.rewards["help"]) for one in last.history] == [(0, 0.1), (2, 0.25)]
    assert told.metrics[-1] == {"step": 2, "help": 0.25}
    # Gone back to its checkpoint, the process measures once more.
    tracking.hear(line(AlignMeasured(step=2, rewards={"help": 0.25})))
    assert len(told.progresses[-1].history) == 2


def test_of_many_evaluations_a_share_is_told_and_the_history_is_thinned() -> None:
    told = Told()
    tracking = Tracking(GrpoSettings(evaluation_steps=1), told)
    tracking.hear(line(AlignMeasured(step=0, rewards={})))
    for number in range(1, 1001):
        tracking.hear(step(number, steps=1000))
        tracking.hear(line(AlignMeasured(step=number, rewards={"help": 0.5})))
    evaluations = [one["step"] for one in told.metrics if "total_steps" not in one]
    assert evaluations == [*range(0, 1001, 20)]
    history = [one.iteration for one in told.progresses[-1].history]
    assert (history[0], history[-1]) == (0, 1000)
    assert len(history) <= 258


def test_what_people_should_know_is_an_event_once() -> None:
    told = Told()
    tracking = Tracking(GrpoSettings(), told)
    tracking.begin()
    for text in ("loss: grpo", "loss: grpo", "loss: dr_grpo"):
        tracking.hear(line(AlignNoted(text=text)))
    assert told.messages == ["loss: grpo", "loss: dr_grpo"]


def test_words_of_a_launcher_are_nobodys_news() -> None:
    told = Told()
    tracking = Tracking(GrpoSettings(), told)
    for noise in (b"W0101 launching\n", b'{"kind": "other"}\n', b"\xff\n", b"\n"):
        tracking.hear(noise)
    assert not told.progresses
    assert tracking.done is None
    done = AlignDone(steps=2, trained_tokens=7, weight_version="w", rewards={})
    tracking.hear(line(done))
    assert tracking.done == done
