"""LoRA adapters: what PEFT's merged weights would draw, beside the plain weights, and swapped."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from steerward.policy.local.checkpoint import LocalCheckpoint, load_policy
from steerward.protocol.errors import CheckpointRefused, NotFound
from tests.policies import save_policy
from tests.policy.conftest import ask_all, make_policy, started, texts, until

TEXTS = ["Hello", "Tell me about rainbows."]
LONG = {"temperature": 0.0, "max_tokens": 200}


def save_adapter(base: Path, folder: Path, *, seed: int) -> Path:
    torch.manual_seed(seed)
    config = LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "v_proj", "down_proj"])
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(base), config)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.4)
    model.save_pretrained(folder)
    return folder


def save_merged(base: Path, adapter: Path, folder: Path) -> Path:
    save_policy(folder)
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), str(adapter))
    model.merge_and_unload().save_pretrained(folder)
    return folder


def request(variant: str | None = None):
    return ask_all(TEXTS, variant=variant, temperature=0.0, max_tokens=30)


async def drawn_by(folder: Path) -> list[str]:
    policy = await started(make_policy(load_policy(str(folder), device="cpu")))
    try:
        return await texts(policy, request())
    finally:
        policy.close()


def test_adapters_draw_what_their_merged_weights_draw(
    policy_folder: Path, checkpoint: LocalCheckpoint, tmp_path: Path
) -> None:
    adapters = [save_adapter(policy_folder, tmp_path / f"a{i}", seed=i) for i in (1, 2)]
    merged = [save_merged(policy_folder, a, tmp_path / f"m{i}") for i, a in enumerate(adapters)]

    async def run() -> list[list[str]]:
        policy = await started(make_policy(checkpoint))
        for i, folder in enumerate(adapters):
            await asyncio.to_thread(policy.load_adapter, f"adapter-{i}", folder)
        assert list(policy.variants) == ["adapter-0", "adapter-1"]
        card, plain = policy.card("adapter-0"), policy.card()
        assert card.parent == "tiny"
        assert card.num_parameters is not None
        assert plain.num_parameters is not None
        assert card.num_parameters > plain.num_parameters
        # All at once: a step runs each with its own weights.
        names = [None, "adapter-0", "adapter-1"]
        found = await asyncio.gather(*(texts(policy, request(name)) for name in names))
        policy.close()
        return list(found)

    expected = [asyncio.run(drawn_by(folder)) for folder in (policy_folder, *merged)]
    assert len({tuple(one) for one in expected}) == 3
    assert asyncio.run(run()) == expected


def test_an_adapter_takes_over_from_one_of_its_name_under_load(
    policy_folder: Path, checkpoint: LocalCheckpoint, tmp_path: Path
) -> None:
    first, second = (save_adapter(policy_folder, tmp_path / f"a{i}", seed=i) for i in (1, 2))

    async def run() -> None:
        policy = await started(make_policy(checkpoint))
        await asyncio.to_thread(policy.load_adapter, "style", first)
        before = await texts(policy, request("style"))
        running = await policy.begin(request("style"))
        reader = aiter(running)
        pieces = [await anext(reader)]
        version = await asyncio.to_thread(policy.load_adapter, "style", second)
        assert policy.card("style").weight_version == version
        after = await texts(policy, request("style"))
        pieces += [piece async for piece in reader]
        found = ["".join(p.text for p in pieces if p.index == i) for i in range(len(TEXTS))]
        assert found == before != after
        # The first was taken out of the model when the last that drew with it had ended.
        await until(lambda: len(adapters_in(checkpoint)) == 1)
        assert await texts(policy, request("style")) == after
        policy.close()

    asyncio.run(run())


def adapters_in(checkpoint: LocalCheckpoint) -> set[str]:
    keys = checkpoint.weights.model.state_dict()
    return {key.split(".lora_A.")[1].split(".")[0] for key in keys if ".lora_A." in key}


@pytest.mark.anyio
async def test_dropped_adapters_leave_the_model_when_their_requests_are_given_up(
    policy_folder: Path, checkpoint: LocalCheckpoint, tmp_path: Path
) -> None:
    """To take one out while the device still draws with it would fail that step for everyone."""
    folder = save_adapter(policy_folder, tmp_path / "a", seed=1)
    policy = await started(make_policy(checkpoint))
    plain = await texts(policy, request())
    for _ in range(10):
        await asyncio.to_thread(policy.load_adapter, "style", folder)
        beside = asyncio.create_task(texts(policy, request()))
        running = await policy.begin(ask_all(TEXTS, variant="style", **LONG))
        await anext(aiter(running))
        policy.drop("style")
        assert len(adapters_in(checkpoint)) == 1
        await running.aclose()
        assert await beside == plain
        await until(lambda: not adapters_in(checkpoint))
    assert await texts(policy, request()) == plain
    policy.close()


@pytest.mark.anyio
async def test_adapters_go_with_the_weights_they_adapted(
    policy_folder: Path, checkpoint: LocalCheckpoint, tmp_path: Path
) -> None:
    folder = save_adapter(policy_folder, tmp_path / "a", seed=1)
    other = save_policy(tmp_path / "other", seed=1)
    policy = await started(make_policy(checkpoint))
    await asyncio.to_thread(policy.load_adapter, "style", folder)
    before = await texts(policy, request("style"))
    running = await policy.begin(request("style"))
    await asyncio.to_thread(policy.swap_weights, other)
    with pytest.raises(NotFound, match="no variant 'style'"):
        await policy.begin(request("style"))
    found = [""] * len(TEXTS)
    async for piece in running:
        found[piece.index] += piece.text
    assert found == before
    policy.close()


def test_an_adapter_that_is_not_finite_is_refused(
    policy_folder: Path, checkpoint: LocalCheckpoint, tmp_path: Path
) -> None:
    folder = save_adapter(policy_folder, tmp_path / "a", seed=1)
    path = folder / "adapter_model.safetensors"
    tensors = load_file(path)
    next(iter(tensors.values()))[0, 0] = float("nan")
    save_file(tensors, path, metadata={"format": "pt"})
    with pytest.raises(CheckpointRefused, match="NaN or infinity"):
        make_policy(checkpoint).load_adapter("style", folder)


def test_a_folder_that_is_no_adapter_is_refused(
    policy_folder: Path, checkpoint: LocalCheckpoint
) -> None:
    with pytest.raises(CheckpointRefused, match="holds no LoRA adapter"):
        make_policy(checkpoint).load_adapter("style", policy_folder)


def test_an_adapter_of_another_model_is_refused(
    policy_folder: Path, checkpoint: LocalCheckpoint, tmp_path: Path
) -> None:
    folder = save_adapter(policy_folder, tmp_path / "a", seed=1)
    config = folder / "adapter_config.json"
    config.write_text(config.read_text().replace('"down_proj"', '"up_proj"'))
    with pytest.raises(CheckpointRefused, match="adapter"):
        make_policy(checkpoint).load_adapter("style", folder)
