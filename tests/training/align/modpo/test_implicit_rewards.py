"""Implicit rewards are beta times the log-ratios that DPO itself would compute."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import get_peft_model
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from steerward.protocol.errors import CheckpointRefused, InvalidRequest
from steerward.training.align.modpo.implicit_rewards import AdapterMargins, tokens_of
from steerward.training.align.modpo.loss import Tradeoff
from steerward.training.align.modpo.margins import Response, with_margins
from tests.policies import save_policy
from tests.training.align.modpo.cases import BETA, lora, pairs, parts, trainer


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_policy(tmp_path_factory.mktemp("policy") / "tiny", rule=None)


@pytest.fixture(scope="module")
def adapters(policy: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two adapters with random weights."""
    found = {}
    for seed, name in enumerate(("be.brief", "safety")):
        torch.manual_seed(seed)
        found[name] = tmp_path_factory.mktemp("adapters") / str(seed)
        get_peft_model(parts(policy)["model"], lora()).save_pretrained(str(found[name]))
    return found


@pytest.mark.parametrize("conversational", [True, False])
def test_tokens_are_those_of_trl(policy: Path, tmp_path: Path, conversational: bool) -> None:
    data = pairs(conversational=conversational)
    prepared = trainer(policy, tmp_path, data=data).train_dataset
    tokenizer = AutoTokenizer.from_pretrained(policy)
    for given, row in zip(data, prepared, strict=True):
        fields: dict[str, Any] = dict(given)
        for side in ("chosen", "rejected"):
            ids, start = tokens_of(tokenizer, fields["prompt"], fields[side])
            assert ids[:start] == row["prompt_ids"]
            assert ids[start:] == row[f"{side}_ids"]


def test_rewards_of_adapters_are_their_own(policy: Path, adapters: dict[str, Path]) -> None:
    """One base for both gives what each gives alone, and both differ."""
    data = pairs(margins=0)
    both = with_margins(data, [AdapterMargins(policy, adapters, beta=BETA)], batch_size=5)
    for k, (name, folder) in enumerate(adapters.items()):
        alone = with_margins(data, [AdapterMargins(policy, {name: folder}, beta=BETA)])
        for one, two in zip(both["margin_chosen"], alone["margin_chosen"], strict=True):
            assert one[k] == pytest.approx(two[0], abs=1e-6)
    first, second = zip(*both["margin_chosen"], strict=True)
    assert first != second


def test_less_is_better_with_the_other_sign(policy: Path, adapters: dict[str, Path]) -> None:
    responses = [Response("Hello", "short", {})]
    more = AdapterMargins(policy, adapters, beta=BETA)
    less = AdapterMargins(policy, adapters, beta=BETA, less=["safety"])
    (one,), (other,) = more.rewards(responses)["safety"], less.rewards(responses)["safety"]
    assert one is not None
    assert one == -(other or 0.0)
    assert one != 0.0
    assert more.rewards(responses)["be.brief"] == less.rewards(responses)["be.brief"]
    assert more.identity("safety") != less.identity("safety")
    assert more.identity("be.brief") == less.identity("be.brief")


def test_policys_own_rewards_as_margins_give_dpo(
    policy: Path, adapters: dict[str, Path], tmp_path: Path
) -> None:
    """With weights that add up to 1, the logit is beta * D_pi, so the loss is DPO's."""
    source = AdapterMargins(policy, {"safety": adapters["safety"]}, beta=BETA)
    data = with_margins(pairs(margins=0), [source])
    losses = []
    for weights in ((0.3, 0.7), (1.0, 0.0)):
        one = trainer(
            policy,
            tmp_path,
            tradeoff=Tradeoff(("helpfulness", "safety"), weights),
            data=data,
            peft_config=lora(),
        )
        one.model.load_adapter(str(adapters["safety"]), adapter_name="trained")
        one.model.set_adapter("trained")
        batch = dict(next(iter(one.get_train_dataloader())))
        losses.append(one.compute_loss(one.model, batch).item())
    assert losses[0] == pytest.approx(losses[1], abs=1e-6)


def test_text_beyond_the_positions_has_no_reward(policy: Path, adapters: dict[str, Path]) -> None:
    source = AdapterMargins(policy, adapters, beta=BETA)
    responses = [Response("Hello", text, {}) for text in ("short", "long " * 300)]
    assert [one is None for one in source.rewards(responses)["safety"]] == [False, True]
    assert source.rewards(responses[1:])["be.brief"] == [None]


def test_identity_is_of_base_adapter_and_beta(policy: Path, adapters: dict[str, Path]) -> None:
    one = AdapterMargins(policy, adapters, beta=BETA)
    other = AdapterMargins(policy, adapters, beta=0.2)
    found = {source.identity(name) for source in (one, other) for name in adapters}
    assert len(found) == 4
    assert one.identity("safety") == AdapterMargins(policy, adapters, beta=BETA).identity("safety")


def test_folders_without_adapters_are_refused(policy: Path, adapters: dict[str, Path]) -> None:
    with pytest.raises(CheckpointRefused, match=r"adapter_config\.json is missing"):
        AdapterMargins(policy, {"safety": policy}, beta=BETA)
    with pytest.raises(InvalidRequest, match="beta above 0"):
        AdapterMargins(policy, adapters, beta=0.0)


@pytest.mark.parametrize("changes", [{"layers": 1}, {"layers": 3}, {"width": 64}], ids=str)
def test_adapters_of_a_model_that_is_built_otherwise_are_refused(
    policy: Path, adapters: dict[str, Path], tmp_path: Path, changes: dict[str, int]
) -> None:
    """Also where PEFT would draw what is missing, or leave the rest aside."""
    other = tmp_path / "other"
    shutil.copytree(policy, other)
    config = AutoConfig.from_pretrained(policy)
    config.num_hidden_layers = changes.get("layers", config.num_hidden_layers)
    config.hidden_size = changes.get("width", config.hidden_size)
    AutoModelForCausalLM.from_config(config).save_pretrained(other)
    with pytest.raises(CheckpointRefused, match="is of another base|does not fit the policy"):
        AdapterMargins(other, adapters, beta=BETA)
