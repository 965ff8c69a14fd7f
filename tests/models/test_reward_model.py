"""Scores agree with the published code, alone and in every company."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from steerward.models.output import RewardOutput
from steerward.models.packing import Group, group_conversations
from steerward.models.prefix_tree import WHOLE, PrefixTree
from steerward.models.reward_model import RewardModel
from steerward.protocol.directions import PreferenceDirection
from steerward.protocol.errors import (
    InputTooLong,
    InvalidRequest,
    NonFiniteScore,
    UnknownObjective,
)
from steerward.protocol.items import PromptTokens
from tests.golden_cases import GOLDEN_NAMES, GOLDEN_TOLERANCE, golden_cases

OTHERS = ("Another answer.", "", "No, I would rather not say anything about that at all.")


def assert_case(model: RewardModel, output: RewardOutput, row: int, case: Any) -> None:
    """Compare one candidate with the published code's output, by maximum absolute error."""

    def close(actual: torch.Tensor, expected: Any) -> None:
        torch.testing.assert_close(
            actual, torch.tensor(expected).reshape(actual.shape), atol=GOLDEN_TOLERANCE, rtol=0
        )

    rewards_K = output.rewards_NK[row]
    # QRM's code reports rewards after the transform, ours are raw on every architecture.
    close(
        rewards_K @ model.transform if model.architecture == "qrm" else rewards_K, case["rewards"]
    )
    if case["score"] is None:
        assert output.scores_N is None
    else:
        assert output.scores_N is not None
        close(output.scores_N[row], case["score"])
    if "gating_output" in case:
        assert output.gates is not None
        close(output.gates[row], case["gating_output"])
    if "coefficients" in case:
        assert output.coefficients is not None
        close(output.coefficients[row], case["coefficients"])


def groups_of(model: RewardModel, case: Any, others: Sequence[str] = ()) -> list[Group]:
    *context, last = case["messages"]
    return group_conversations(model.encode(context, [last["content"], *others]))


@pytest.mark.parametrize("name", GOLDEN_NAMES)
def test_ids_and_positions_are_those_of_the_published_code(
    golden_models: dict[str, RewardModel], name: str
) -> None:
    for case in golden_cases(name):
        *context, last = case["messages"]
        (conversation,) = golden_models[name].encode(context, [last["content"]])
        assert conversation.ids == case["input_ids"], case["name"]
        if "prompt_position" in case:
            assert conversation.gating_position == case["prompt_position"], case["name"]
            assert len(conversation.ids) - 1 == case["last_position"], case["name"]


@pytest.mark.parametrize("name", GOLDEN_NAMES)
def test_scores_alone_are_those_of_the_published_code(
    golden_models: dict[str, RewardModel], name: str
) -> None:
    for case in golden_cases(name):
        output = golden_models[name].score_conversation(case["messages"])
        assert_case(golden_models[name], output, 0, case)


@pytest.mark.parametrize("name", GOLDEN_NAMES)
@pytest.mark.parametrize("seed", range(3))
def test_scores_in_a_packed_batch_in_any_order_are_the_same(
    golden_models: dict[str, RewardModel], name: str, seed: int
) -> None:
    model = golden_models[name]
    cases = golden_cases(name)
    random.Random(seed).shuffle(cases := list(cases))
    output = model.score([group for case in cases for group in groups_of(model, case)])
    for row, case in enumerate(cases):
        assert_case(model, output, row, case)


@pytest.mark.parametrize("name", GOLDEN_NAMES)
def test_scores_within_a_group_that_shares_its_prompt_are_the_same(
    golden_models: dict[str, RewardModel], name: str
) -> None:
    model = golden_models[name]
    cases = golden_cases(name)
    groups = [groups_of(model, case, OTHERS) for case in cases]
    assert all(len(of_case) == 1 for of_case in groups)
    output = model.score([group for of_case in groups for group in of_case])
    for p, case in enumerate(cases):
        assert_case(model, output, p * (1 + len(OTHERS)), case)


@pytest.mark.parametrize("name", GOLDEN_NAMES)
def test_scores_behind_kept_prompts_are_the_same(
    golden_models: dict[str, RewardModel], name: str
) -> None:
    model, tree = golden_models[name], PrefixTree(capacity_tokens=10**9)
    for case in [*golden_cases(name), *golden_cases(name)]:
        plan = model.plan(tree)
        placements = [plan.add(group) for group in groups_of(model, case, OTHERS)]
        batch = plan.batch()
        assert_case(model, model(batch).by_candidate(model.gate_rows(batch)), 0, case)
    kept = {node.keys_values for node in tree._by_use if node.keys_values is not None}
    expected = tree.num_tokens * model.backbone.bytes_per_token
    assert sum(keys_values.num_bytes for keys_values in kept) == expected
    # The second time nothing but candidates was computed.
    assert batch.num_tokens == sum(len(s) for s in groups_of(model, case, OTHERS)[0].suffixes)
    assert placements[0].tokens_cached == len(groups_of(model, case)[0].prefix)


@pytest.mark.parametrize("name", GOLDEN_NAMES)
def test_scores_of_the_deterministic_mode_are_the_same(
    golden_models: dict[str, RewardModel], name: str
) -> None:
    model, tree = golden_models[name], PrefixTree(capacity_tokens=10**9, least_shared=WHOLE)
    for case in golden_cases(name):
        plan = model.plan(tree)
        for group in groups_of(model, case, OTHERS):
            plan.add(group)
        output = model.forward_apart(plan.batches()).rows(plan.leaf_rows())
        assert_case(model, output, 0, case)


@pytest.mark.parametrize("name", GOLDEN_NAMES)
def test_scores_agree_with_transformers_own_padded_batches(
    golden_models: dict[str, RewardModel], name: str
) -> None:
    """The same hidden states come from transformers' own attention, padded on either side."""
    model = golden_models[name]
    backbone = model.backbone.model
    sequences = [case["input_ids"] for case in golden_cases(name)]
    longest = max(map(len, sequences))
    lengths = torch.tensor([len(ids) for ids in sequences])
    packed = model.score([group for case in golden_cases(name) for group in groups_of(model, case)])
    for side in ("left", "right"):
        rows, masks = [], []
        for ids in sequences:
            gap = longest - len(ids)
            pad, mask = [0] * gap, [1] * len(ids)
            rows.append(pad + ids if side == "left" else ids + pad)
            masks.append([0] * gap + mask if side == "left" else mask + [0] * gap)
        mask = torch.tensor(masks)
        positions = (mask.cumsum(dim=-1) - 1).clamp(min=0)
        backbone.set_attn_implementation("sdpa")
        try:
            with torch.inference_mode():
                hidden = backbone(
                    torch.tensor(rows), attention_mask=mask, position_ids=positions, use_cache=False
                ).last_hidden_state
        finally:
            backbone.set_attn_implementation("steerward_packed")
        everyone = torch.arange(len(lengths))
        gaps = longest - lengths if side == "left" else torch.zeros_like(lengths)
        last = lengths - 1 + gaps
        rewards = model.heads(hidden[everyone, last])
        torch.testing.assert_close(rewards, packed.rewards_NK, atol=GOLDEN_TOLERANCE, rtol=0)
        if model.gate is None:
            continue
        assert packed.gates is not None
        assert packed.scores_N is not None
        read = last
        if model.gates_are_per_prompt:
            prompts = [groups_of(model, case)[0].gating_position for case in golden_cases(name)]
            read = torch.tensor(prompts) + gaps
        gates = model.gate(hidden[everyone, read])
        torch.testing.assert_close(gates, packed.gates, atol=GOLDEN_TOLERANCE, rtol=0)
        scores = ((rewards @ model.transform) * gates).sum(dim=-1)
        torch.testing.assert_close(scores, packed.scores_N, atol=GOLDEN_TOLERANCE, rtol=0)


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 2**16),
    prompt_length=st.integers(1, 60),
    suffix_lengths=st.lists(st.integers(1, 40), min_size=1, max_size=6),
)
def test_a_group_scores_as_its_sequences_alone(
    golden_models: dict[str, RewardModel],
    seed: int,
    prompt_length: int,
    suffix_lengths: list[int],
) -> None:
    model = golden_models["armorm"]
    rng = random.Random(seed)

    def ids(length: int) -> tuple[int, ...]:
        return tuple(rng.randrange(1000) for _ in range(length))

    prefix = ids(prompt_length)
    gating_position = rng.randrange(prompt_length)
    suffixes = [ids(length) for length in suffix_lengths]
    grouped = model.score([Group(prefix, suffixes, gating_position)])
    alone = [model.score([Group(prefix, [suffix], gating_position)]) for suffix in suffixes]
    for n, single in enumerate(alone):
        for name in ("rewards_NK", "scores_N"):
            torch.testing.assert_close(
                getattr(grouped, name)[n], getattr(single, name)[0], atol=GOLDEN_TOLERANCE, rtol=0
            )
        assert grouped.gates is not None
        assert single.gates is not None
        torch.testing.assert_close(grouped.gates[0], single.gates[0], atol=1e-6, rtol=0)


def test_coefficients_times_rewards_sum_to_the_score(armorm: RewardModel) -> None:
    for case in golden_cases("armorm"):
        output = armorm.score_conversation(case["messages"])
        assert output.coefficients is not None
        assert output.scores_N is not None
        total = (output.coefficients[0].double() * output.rewards_NK[0].double()).sum()
        assert abs(float(total) - float(output.scores_N[0])) <= GOLDEN_TOLERANCE


def test_over_long_candidate_is_refused_with_both_lengths(armorm: RewardModel) -> None:
    with pytest.raises(InputTooLong, match=r"3,0\d\d tokens .* limit 2,048") as caught:
        armorm.encode([{"role": "user", "content": "hi"}], ["short", "y " * 3000])
    assert caught.value.param == "candidates[1]"


def test_nothing_is_encoded_after_an_over_long_candidate(armorm: RewardModel) -> None:
    class Watched(list[str]):
        num_read = 0

        def __iter__(self) -> Iterator[str]:
            for answer in super().__iter__():
                self.num_read += 1
                yield answer

    answers = Watched(["short", "y " * 3000, *["never looked at"] * 20])
    with pytest.raises(InputTooLong):
        armorm.encode([{"role": "user", "content": "hi"}], answers)
    assert answers.num_read == 2


@pytest.mark.parametrize("name", GOLDEN_NAMES)
def test_ids_of_the_published_code_have_its_scores(
    golden_models: dict[str, RewardModel], name: str
) -> None:
    model = golden_models[name]
    for case in golden_cases(name):
        ids = case["input_ids"]
        *context, last = case["messages"]
        (conversation,) = model.encode(context, [last["content"]])
        position = conversation.gating_position
        # Where the prompt ends is the sender's choice, as long as it holds the gate's token.
        for cut in {len(ids) // 2, len(ids) - 1}:
            cut = max(cut, position + 1)
            tokens = PromptTokens(
                prompt=ids[:cut], candidates=[ids[cut:]], gating_position=position
            )
            assert_case(model, model.score([model.group_tokens(tokens)]), 0, case)


BOS = 1018
GOOD: dict[str, Any] = {"prompt": [BOS, 5, 7], "candidates": [[8], [9, 2]], "gating_position": 2}


@pytest.mark.parametrize(
    ("change", "param", "words"),
    [
        ({"prompt": [BOS, -1, 7]}, "prompt[1]", r"-1 is not in the vocabulary.* 0 to 1,023"),
        ({"prompt": [BOS, 5, 1024]}, "prompt[2]", r"1024 is not in the vocabulary"),
        ({"candidates": [[8], [9, 10**90]]}, "candidates[1][1]", r"10{70,79}… is not in"),
        ({"prompt": [BOS, BOS, 7]}, None, "two BOS tokens .1018.; send one"),
        ({"prompt": [5, 5, 7]}, None, "begins with token 5.*put 1018 first"),
        (
            {"prompt": [BOS], "candidates": [[8], [BOS, 3]], "gating_position": 0},
            None, "two BOS tokens",
        ),
        ({"gating_position": None}, "gating_position", "never searched for"),
    ],
)  # fmt: skip
def test_bad_ids_are_refused_with_their_place(
    armorm: RewardModel, change: dict[str, Any], param: str | None, words: str
) -> None:
    with pytest.raises(InvalidRequest, match=words) as caught:
        armorm.group_tokens(PromptTokens.model_validate({**GOOD, **change}))
    assert caught.value.param == param


def test_over_long_ids_are_refused_with_both_lengths(armorm: RewardModel) -> None:
    full = armorm.max_input_tokens
    armorm.group_tokens(PromptTokens(**{**GOOD, "candidates": [[1] * (full - 3)]}))
    with pytest.raises(InputTooLong, match=r"2,049 tokens \(3 \+ 2,046\), limit 2,048") as caught:
        armorm.group_tokens(PromptTokens(**{**GOOD, "candidates": [[1], [1] * (full - 2)]}))
    assert caught.value.param == "candidates[1]"


@pytest.mark.parametrize("name", sorted({*GOLDEN_NAMES} - {"armorm", "qrm"}))
def test_position_is_needed_only_where_a_gate_reads_it(
    golden_models: dict[str, RewardModel], name: str
) -> None:
    model = golden_models[name]
    groups = [
        model.group_tokens(PromptTokens(**{**GOOD, "gating_position": position}))
        for position in (None, 0, 2)
    ]
    first, *others = (model.score([group]).rewards_NK for group in groups)
    assert all(torch.equal(first, other) for other in others)


@settings(max_examples=30, deadline=None)
@given(ids=st.lists(st.integers(-5, 1030), min_size=2, max_size=12), data=st.data())
def test_ids_become_a_group_as_they_are_or_are_refused(
    golden_models: dict[str, RewardModel], ids: list[int], data: st.DataObject
) -> None:
    ids = [BOS, *ids]
    cut = data.draw(st.integers(1, len(ids) - 1))
    position = data.draw(st.integers(0, cut - 1))
    tokens = PromptTokens(prompt=ids[:cut], candidates=[ids[cut:]], gating_position=position)
    is_good = all(0 <= token_id < 1024 for token_id in ids) and ids[1] != BOS
    try:
        group = golden_models["armorm"].group_tokens(tokens)
    except InvalidRequest:
        assert not is_good
    else:
        assert is_good
        assert (group.prefix, group.suffixes, group.gating_position) == (
            tuple(ids[:cut]), [tuple(ids[cut:])], position,
        )  # fmt: skip


def test_longest_allowed_input_is_scored_whole(armorm: RewardModel) -> None:
    full = Group((1,) * 8, [(2,) * (armorm.max_input_tokens - 8)], gating_position=4)
    assert torch.isfinite(armorm.score([full]).rewards_NK).all()


def test_nan_is_an_error_and_never_a_score(armorm: RewardModel) -> None:
    weight = armorm.heads.weight
    kept = weight[3, 5].clone()
    weight[3, 5] = float("nan")
    try:
        with pytest.raises(NonFiniteScore):
            armorm.score_conversation(golden_cases("armorm")[0]["messages"])
    finally:
        weight[3, 5] = kept


def test_directions_and_weights_need_no_other_forward(armorm: RewardModel) -> None:
    rewards_NK = armorm.score_conversation(golden_cases("armorm")[0]["messages"]).rewards_NK
    direction = PreferenceDirection.from_mapping({"objective_0": 3.0, "objective_4": -4.0})
    directions_VK = torch.tensor([armorm.objectives.vector(direction.components)])
    scores = armorm.direction_scores(rewards_NK, directions_VK)
    expected = 0.6 * rewards_NK[0, 0] - 0.8 * rewards_NK[0, 4]
    torch.testing.assert_close(scores[0, 0], expected.double())
    coefficients_K = armorm.weighted_coefficients({"objective_2": 2.0})
    # The transform still applies: column 2 of the matrix, twice.
    torch.testing.assert_close(coefficients_K, 2.0 * armorm.transform[:, 2])
    with pytest.raises(UnknownObjective, match="objective_0"):
        armorm.weighted_coefficients({"kindness": 1.0})
