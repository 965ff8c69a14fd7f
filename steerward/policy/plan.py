"""What a steering request comes to: which prompts are drawn from, and what is said about it.

Pure: names go in, a plan comes out, and every refusal that needs no token happens here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from steerward.policy.case import Case, RewardModelNames, Turns, conditioned
from steerward.policy.generation import Prompt
from steerward.policy.neighbours import neighbours_of
from steerward.policy.steering_types import SteeringReport, SteeringRequest
from steerward.protocol.conditioning import Conditioning, ConditioningRule
from steerward.protocol.directions import PreferenceDirection
from steerward.protocol.errors import InvalidRequest, UnknownObjective
from steerward.protocol.policies import Steering

MAX_SAMPLES = 128
"""Most completions that one request may draw."""
_DEFAULT_BEST_OF = 8
# Further away a neighbour would ask for less of the target than nothing.
_MAX_NEIGHBOUR_DEG = 90.0


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be drawn, scored and returned."""

    prompts: tuple[Prompt, ...]
    """One for each sample."""
    num_returned: int
    selects: bool
    """Whether the best are chosen, or all returned."""
    conversation: Turns | None
    """What the reward model reads before each completion; None: nothing is scored."""
    reward_direction: PreferenceDirection | None
    """In the reward model's names."""
    report: SteeringReport


def make_plan(
    request: SteeringRequest,
    *,
    policy: str,
    rule: ConditioningRule | None,
    reward_model: RewardModelNames | None,
) -> Plan:
    """Return the plan of a request.

    Args:
        request: What is asked for.
        policy: Its name.
        rule: How it reads a direction, if it does.
        reward_model: What ranks its completions, if anything does.

    Raises:
        InvalidRequest: If counts do not fit, or something is asked for that is not there.
        UnknownObjective: If nobody can act on one of the direction's objectives.
        InvalidDirection: If it lies outside the cone, or names an objective twice.
    """
    case = Case(request, policy, rule, reward_model)
    _check_counts(request)
    case.check_direction()
    mode = _mode(case)
    if mode == "best_of":
        return _plan_best_of(case)
    if request.best_of is not None and request.best_of > request.n:
        raise InvalidRequest(
            f"best_of is {request.best_of} and n {request.n}, but steering {mode} does not choose "
            "by best_of; leave it out"
            + (" and give num_neighbours" if mode == "neighbours" else "")
            + ", or ask for steering: best_of",
            param="best_of",
        )
    return _plan_neighbours(case) if mode == "neighbours" else _plan_prompt(case)


def _check_counts(request: SteeringRequest) -> None:
    n, best_of = request.n, request.best_of
    if not 1 <= n <= MAX_SAMPLES:
        raise InvalidRequest(f"n is {n}; give 1 to {MAX_SAMPLES}", param="n")
    if best_of is not None and not n <= best_of <= MAX_SAMPLES:
        raise InvalidRequest(
            f"best_of is {best_of} and n {n}; the n best of best_of are returned: give {n} to "
            f"{MAX_SAMPLES}",
            param="best_of",
        )


def _mode(case: Case) -> Steering:
    request = case.request
    if request.steering != "auto":
        return request.steering
    chooses = request.best_of is not None and request.best_of > request.n
    if chooses or (request.direction is not None and not case.can_condition):
        return "best_of"
    return "prompt"


def _plan_prompt(case: Case) -> Plan:
    """All samples are returned; rewards are told where there are some."""
    request = case.request
    conditioning, prompt, conversation, reward_direction = None, request.prompt, None, None
    warnings: list[str] = []
    if request.direction is not None:
        conditioning = case.needed_rule().condition(request.direction, force=request.force)
        prompt = conditioned(prompt, conditioning.system)
        warnings += conditioning.warnings
    if request.with_rewards and case.reward_model is not None:
        conversation = case.conversation(way_out="send reward: false")
        try:
            reward_direction = case.reward_direction()
        except UnknownObjective as error:
            warnings.append(f"no direction_score: {error.message}")
    prompts = (prompt,) * request.n
    return Plan(
        prompts=prompts,
        num_returned=request.n,
        selects=False,
        conversation=conversation,
        reward_direction=reward_direction,
        report=_report(
            case,
            "prompt",
            prompts=prompts,
            conversation=conversation,
            conditioning=conditioning,
            warnings=warnings,
        ),
    )


def _plan_best_of(case: Case) -> Plan:
    """The best are chosen; samples are conditioned too where the policy was trained to that."""
    request = case.request
    case.needed_reward_model()
    reward_direction = case.reward_direction()
    conversation = case.conversation(way_out="selection needs a prompt that it can judge")
    best_of = request.best_of or max(_DEFAULT_BEST_OF, request.n)
    conditioning, reason = case.conditioning_if_any()
    prompt, warnings = request.prompt, list[str]()
    if conditioning is not None:
        prompt = conditioned(prompt, conditioning.system)
        warnings += conditioning.warnings
    if reason is not None:
        warnings.append(f"{reason}: samples were drawn without the direction and chosen by it")
    if request.sampling.temperature == 0 and best_of > 1:
        warnings.append("at temperature 0 all samples are the same; raise it to have a choice")
    prompts = (prompt,) * best_of
    return Plan(
        prompts=prompts,
        num_returned=request.n,
        selects=True,
        conversation=conversation,
        reward_direction=reward_direction,
        report=_report(
            case,
            "best_of",
            prompts=prompts,
            conversation=conversation,
            conditioning=conditioning,
            warnings=warnings,
        ),
    )


def _plan_neighbours(case: Case) -> Plan:
    """One sample for each direction near the target, and the target chooses.

    RPS (arXiv:2510.20498).
    """
    request, target = case.request, case.request.direction
    if target is None:
        raise InvalidRequest(
            "steering neighbours needs a direction to be near to; give one", param="direction"
        )
    case.needed_reward_model()
    _check_neighbours(request)
    rule = case.needed_rule()
    at_target = rule.condition(target, force=True)
    directions = neighbours_of(
        target,
        rule,
        count=request.num_neighbours,
        within_deg=request.neighbour_deg,
        force=request.force,
        seed=request.sampling.seed,
    )
    conditionings = [rule.condition(direction, force=request.force) for direction in directions]
    prompts = tuple(conditioned(request.prompt, c.system) for c in conditionings)
    conversation = case.conversation(way_out="selection needs a prompt that it can judge")
    warnings = _shared_warnings(conditionings)
    near = tuple(direction.components for direction in directions)
    return Plan(
        prompts=prompts,
        num_returned=request.n,
        selects=True,
        conversation=conversation,
        reward_direction=case.reward_direction(),
        report=_report(
            case,
            "neighbours",
            prompts=prompts,
            conversation=conversation,
            conditioning=at_target,
            warnings=warnings,
            neighbours=near,
        ),
    )


def _check_neighbours(request: SteeringRequest) -> None:
    count, degrees = request.num_neighbours, request.neighbour_deg
    if not request.n <= count <= MAX_SAMPLES:
        raise InvalidRequest(
            f"num_neighbours is {count} and n {request.n}; the n best of them are returned: give "
            f"{request.n} to {MAX_SAMPLES}",
            param="num_neighbours",
        )
    if not 0 < degrees <= _MAX_NEIGHBOUR_DEG:
        raise InvalidRequest(
            f"neighbours are to be up to {degrees:g} degrees away; give more than 0 and at most "
            f"{_MAX_NEIGHBOUR_DEG:g}",
            param="neighbour_angle",
        )


def _shared_warnings(conditionings: Sequence[Conditioning]) -> list[str]:
    """Return one warning for all neighbours, in place of one for each."""
    warned = [c.warnings[0] for c in conditionings if c.warnings]
    return [f"{len(warned)} of {len(conditionings)} neighbours: {warned[0]}"] if warned else []


def _report(
    case: Case,
    mode: Steering,
    *,
    prompts: Sequence[Prompt],
    conversation: Turns | None,
    conditioning: Conditioning | None,
    warnings: Sequence[str],
    neighbours: tuple[Mapping[str, float], ...] = (),
) -> SteeringReport:
    """Return what is told of a plan."""
    request, reward_model = case.request, case.reward_model
    system = None
    if conditioning is not None:
        at_direction = conditioned(request.prompt, conditioning.system)
        # Of an even number of neighbours none may be the direction itself.
        system = at_direction.messages[0]["content"] if at_direction in prompts else None
    if conversation is not None and request.prompt.text is not None:
        warnings = [*warnings, "the reward model read the prompt text as one user turn"]
    acted = {"conditioning": conditioning is not None, "selection": mode != "prompt"}
    scored_by = reward_model.name if reward_model and conversation is not None else None
    return SteeringReport(
        mode=mode,
        mechanisms=tuple(name for name, did in acted.items() if did),
        direction=request.direction.components if request.direction is not None else None,
        rule=conditioning.rule if conditioning is not None else None,
        system=system,
        samples=len(prompts),
        reward_model=scored_by,
        warnings=tuple(warnings),
        neighbours=neighbours,
    )
