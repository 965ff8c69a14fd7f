"""The policy as the server uses it: admission, cancellation, limits, weights that change."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from steerward.policy.generation import GenerationRequest, Prompt, Sampling
from steerward.policy.local.checkpoint import LocalCheckpoint, load_policy, read_rule
from steerward.protocol.conditioning import DPA_V1
from steerward.protocol.errors import (
    CheckpointRefused,
    DeadlineExceeded,
    EngineFailure,
    InputTooLong,
    InvalidRequest,
    NotFound,
    NotReady,
    Overloaded,
)
from tests.policies import save_policy
from tests.policy.conftest import ask, ask_all, make_policy, pieces, started, texts, until

LONG = {"temperature": 0.0, "max_tokens": 200}


def test_the_same_seed_gives_the_same_completions(checkpoint: LocalCheckpoint) -> None:
    async def run() -> list[list[str]]:
        policy = await started(make_policy(checkpoint))
        try:
            request = ask_all(["Hello"] * 3, seed=5, max_tokens=20, temperature=1.0)
            first = await texts(policy, request)
            # Other requests beside it, and another order of arrival.
            others = [
                asyncio.create_task(texts(policy, ask(f"{i}", max_tokens=30, seed=i)))
                for i in range(4)
            ]
            again = await texts(policy, request)
            await asyncio.gather(*others)
            other_seed = await texts(
                policy, ask_all(["Hello"] * 3, seed=6, max_tokens=20, temperature=1.0)
            )
            return [first, again, other_seed]
        finally:
            policy.close()

    first, again, other_seed = asyncio.run(run())
    assert first == again
    assert first != other_seed


def test_the_last_piece_and_no_other_has_a_reason(checkpoint: LocalCheckpoint) -> None:
    async def run() -> None:
        policy = await started(make_policy(checkpoint))
        found = await pieces(policy, ask_all(["Hello", "Tell me"], max_tokens=9, seed=0))
        for index in (0, 1):
            own = [piece for piece in found if piece.index == index]
            assert [piece.finish_reason for piece in own[:-1]] == [None] * (len(own) - 1)
            assert own[-1].finish_reason in ("length", "stop")
            assert sum(piece.num_tokens for piece in own) <= 9
        policy.close()

    asyncio.run(run())


def test_a_stop_text_ends_the_completion_before_it(checkpoint: LocalCheckpoint) -> None:
    async def run() -> None:
        policy = await started(make_policy(checkpoint))
        (whole,) = await texts(policy, ask("Tell me", temperature=0.0, max_tokens=40))
        stop = whole[len(whole) // 2 :][:3]
        found = await pieces(policy, ask("Tell me", temperature=0.0, max_tokens=40, stop=(stop,)))
        assert "".join(piece.text for piece in found) == whole[: whole.index(stop)]
        assert found[-1].finish_reason == "stop"
        policy.close()

    asyncio.run(run())


def test_closing_a_generation_frees_its_place_at_once(checkpoint: LocalCheckpoint) -> None:
    async def run() -> None:
        policy = await started(make_policy(checkpoint, max_running=1))
        stream = await policy.begin(ask("Hello", **LONG))
        reader = aiter(stream)
        await anext(reader)
        waiting = asyncio.create_task(texts(policy, ask("Tell me", max_tokens=3, seed=0)))
        await until(lambda: policy.card().waiting == 1)
        await stream.aclose()
        await asyncio.wait_for(waiting, 5)
        await until(lambda: policy.card().running == 0)
        await stream.aclose()
        policy.close()

    asyncio.run(run())


def test_closing_ends_a_reader_in_another_task(checkpoint: LocalCheckpoint) -> None:
    async def run() -> None:
        policy = await started(make_policy(checkpoint))
        generation = await policy.begin(ask("Hello", **LONG))

        async def read_all() -> int:
            return len([piece async for piece in generation])

        reading = asyncio.create_task(read_all())
        await until(lambda: policy.card().running == 1)
        await generation.aclose()
        assert await asyncio.wait_for(reading, 5) < 200
        policy.close()

    asyncio.run(run())


def test_a_reader_that_does_not_read_holds_up_nobody(checkpoint: LocalCheckpoint) -> None:
    async def run() -> None:
        policy = await started(make_policy(checkpoint, max_running=2))
        slow = await policy.begin(ask("Hello", **LONG))
        for i in range(5):
            assert await texts(policy, ask(f"{i}", max_tokens=5, seed=i))
        count = sum([piece.num_tokens async for piece in slow])
        assert 0 < count <= 200
        policy.close()

    asyncio.run(run())


def test_more_than_may_wait_is_refused(checkpoint: LocalCheckpoint) -> None:
    async def run() -> None:
        policy = await started(make_policy(checkpoint, max_running=1, max_waiting=4))
        running = [await policy.begin(ask("Hello", **LONG)) for _ in range(4)]
        with pytest.raises(Overloaded, match="limit 4") as caught:
            await policy.begin(ask_all(["Hello"] * 3, **LONG))
        assert caught.value.retry_after_s
        with pytest.raises(InputTooLong, match="5 completions in one request, limit 4"):
            await policy.begin(ask_all(["Hello"] * 5, **LONG))
        for generation in running:
            await generation.aclose()
        await until(lambda: policy.card().waiting == 0)
        assert await texts(policy, ask("Hello", max_tokens=2, seed=0))
        policy.close()

    asyncio.run(run())


def test_lengths_over_the_limit_are_refused_with_both_numbers(checkpoint: LocalCheckpoint) -> None:
    async def run() -> None:
        policy = await started(make_policy(checkpoint))
        with pytest.raises(InputTooLong, match=r"prompt has .* reads 256"):
            await policy.begin(ask("word " * 200, max_tokens=1))
        with pytest.raises(InputTooLong, match="together .*, limit 256; ask for at most"):
            await policy.begin(ask("Hello", max_tokens=256))
        found = await pieces(policy, ask("Hello", temperature=0.0, default_max_tokens=50))
        assert sum(piece.num_tokens for piece in found) <= 50
        await pieces(policy, ask("word " * 40, temperature=0.0, default_max_tokens=250))
        policy.close()

    asyncio.run(run())


def test_a_deadline_ends_it_and_frees_its_place(checkpoint: LocalCheckpoint) -> None:
    async def run() -> None:
        policy = await started(make_policy(checkpoint))
        with pytest.raises(DeadlineExceeded, match="allow more time"):
            await pieces(policy, ask("Hello", timeout_s=0.05, **LONG))
        await until(lambda: policy.card().running == 0)
        policy.close()

    asyncio.run(run())


def test_closing_the_policy_ends_what_runs_with_not_ready(checkpoint: LocalCheckpoint) -> None:
    async def run() -> None:
        policy = await started(make_policy(checkpoint))
        running = asyncio.create_task(pieces(policy, ask("Hello", **LONG)))
        await until(lambda: policy.card().running == 1)
        await asyncio.to_thread(policy.close)
        with pytest.raises(NotReady):
            await running
        with pytest.raises(NotReady):
            await policy.begin(ask())

    asyncio.run(run())


def test_a_step_that_fails_takes_no_later_request_with_it(checkpoint: LocalCheckpoint) -> None:
    async def run() -> None:
        policy = await started(make_policy(checkpoint))
        embedding = checkpoint.weights.model.get_input_embeddings()
        kept = embedding.weight.data  # pyright: ignore
        embedding.weight.data = torch.full_like(kept, float("nan"))  # pyright: ignore
        with pytest.raises(EngineFailure, match="NaN or infinite"):
            await pieces(policy, ask())
        embedding.weight.data = kept  # pyright: ignore
        broken = iter([True])

        def break_once(*_: object) -> None:
            if next(broken, False):
                raise RuntimeError("out of memory")

        hook = checkpoint.weights.model.register_forward_pre_hook(break_once)
        with pytest.raises(EngineFailure, match="decoding step failed"):
            await pieces(policy, ask())
        hook.remove()
        assert await texts(policy, ask(max_tokens=3, seed=1))
        assert policy.card().running == policy.card().waiting == 0
        policy.close()

    asyncio.run(run())


def test_a_device_that_fails_for_good_is_not_ready(checkpoint: LocalCheckpoint) -> None:
    async def run() -> None:
        policy = await started(make_policy(checkpoint))
        embedding = checkpoint.weights.model.get_input_embeddings()
        kept = embedding.weight.data  # pyright: ignore
        embedding.weight.data = kept[:, :16]  # pyright: ignore
        with pytest.raises(EngineFailure, match="decoding step failed"):
            await pieces(policy, ask())
        await until(lambda: not policy.is_ready)
        assert "device has failed" in policy.reason
        with pytest.raises(NotReady, match="device has failed"):
            await policy.begin(ask())
        policy.close()

    asyncio.run(run())


def test_swapped_weights_take_over_without_dropping_requests(
    policy_folder: Path, tmp_path: Path
) -> None:
    other = save_policy(tmp_path / "other", seed=1)

    async def alone(folder: Path) -> list[str]:
        policy = await started(make_policy(load_policy(str(folder), device="cpu")))
        found = await texts(policy, ask_all(["Hello"] * 2, **LONG))
        policy.close()
        return found

    async def swapped() -> tuple[list[str], list[str], list[str]]:
        policy = await started(make_policy(load_policy(str(policy_folder), device="cpu")))
        before = await policy.begin(ask_all(["Hello"] * 2, **LONG))
        reader = aiter(before)
        first = await anext(reader)
        version = await asyncio.to_thread(policy.swap_weights, other)
        assert policy.card().weight_version == version != before.weight_version
        after = asyncio.create_task(texts(policy, ask_all(["Hello"] * 2, **LONG)))
        found = ["", ""]
        found[first.index] += first.text
        async for piece in reader:
            found[piece.index] += piece.text
        versions = [before.weight_version, version]
        new = await after
        policy.close()
        return found, new, versions

    old_alone, new_alone = asyncio.run(alone(policy_folder)), asyncio.run(alone(other))
    found_old, found_new, versions = asyncio.run(swapped())
    assert old_alone != new_alone
    assert found_old == old_alone
    assert found_new == new_alone
    assert len(set(versions)) == 2


def test_weights_of_another_shape_are_refused(checkpoint: LocalCheckpoint, tmp_path: Path) -> None:
    other = save_policy(tmp_path / "other")
    tensors = load_file(other / "model.safetensors")
    del tensors["model.norm.weight"]
    save_file(tensors, other / "model.safetensors", metadata={"format": "pt"})
    policy = make_policy(checkpoint)
    with pytest.raises(CheckpointRefused, match=r"model\.norm\.weight"):
        policy.swap_weights(other)


def test_a_cache_that_holds_next_to_nothing_is_refused(checkpoint: LocalCheckpoint) -> None:
    with pytest.raises(CheckpointRefused, match="need --policy-cache-bytes"):
        make_policy(checkpoint, cache_bytes=1_000)


def test_a_small_cache_makes_the_length_limit_smaller(
    checkpoint: LocalCheckpoint, caplog: pytest.LogCaptureFixture
) -> None:
    async def run() -> None:
        policy = await started(make_policy(checkpoint, cache_bytes=40_000))
        limit = policy.card().max_input_tokens
        assert limit is not None
        assert 100 < limit < 256
        assert f"takes up to {limit} tokens and not 256" in caplog.text
        with pytest.raises(InputTooLong, match=f"limit {limit}"):
            await policy.begin(ask("Hello", max_tokens=limit))
        found = await pieces(policy, ask_all(["Hello"] * 4, temperature=0.0))
        assert sum(piece.finish_reason is not None for piece in found) == 4
        policy.close()

    asyncio.run(run())


def test_what_broke_one_request_does_not_reach_the_next(checkpoint: LocalCheckpoint) -> None:
    """NaN that lies in a block of the cache is still NaN when it is masked."""

    async def run() -> None:
        policy = await started(make_policy(checkpoint))
        questions = ["Hello", "Tell me about rainbows and light and drops of water."]
        expected = await texts(policy, ask_all(questions, temperature=0.0, max_tokens=20))
        cache = policy._worker._decoder._cache
        for tensor in (*cache._keys, *cache._values):
            tensor.fill_(float("nan"))
        again = await texts(policy, ask_all(questions, temperature=0.0, max_tokens=20))
        assert again == expected
        policy.close()

    asyncio.run(run())


def test_the_fingerprint_tells_weights_apart(checkpoint: LocalCheckpoint, tmp_path: Path) -> None:
    async def fingerprint(checkpoint: LocalCheckpoint) -> str:
        policy = await started(make_policy(checkpoint))
        generation = await policy.begin(ask(max_tokens=1))
        await generation.aclose()
        policy.close()
        return generation.system_fingerprint

    first = asyncio.run(fingerprint(checkpoint))
    other = load_policy(str(save_policy(tmp_path / "other", seed=1)), device="cpu")
    assert first == asyncio.run(fingerprint(checkpoint))
    assert first != asyncio.run(fingerprint(other))


def test_messages_without_a_template_are_refused_and_text_is_not(tmp_path: Path) -> None:
    folder = save_policy(tmp_path / "plain", has_template=False)

    async def run() -> None:
        policy = await started(make_policy(load_policy(str(folder), device="cpu")))
        with pytest.raises(InvalidRequest, match="no chat template"):
            await policy.begin(ask())
        text = Prompt(text="The quick brown")
        deadline = time.perf_counter() + 30
        request = GenerationRequest([text], Sampling(max_tokens=4, seed=0), deadline)
        assert await texts(policy, request)
        policy.close()

    asyncio.run(run())


def test_dpa_gets_its_template_where_the_tokenizer_has_none(tmp_path: Path) -> None:
    folder = save_policy(tmp_path / "DPA-v1-Mistral-7B", has_template=False, rule=None)
    checkpoint = load_policy(str(folder), device="cpu")
    assert checkpoint.rule == DPA_V1
    assert checkpoint.chat is not None
    ids = checkpoint.chat.encode_prompt(
        [{"role": "system", "content": "S"}, {"role": "user", "content": "U"}]
    )
    shown = checkpoint.tokenizer.decode(ids)
    assert shown == "<|system|>\nS<|end|>\n<|user|>\nU<|end|>\n<|assistant|>\n"


def test_an_unknown_rule_is_refused() -> None:
    with pytest.raises(CheckpointRefused, match="dpa-v1"):
        read_rule("dpa-v9")


def test_an_unknown_variant_is_refused(checkpoint: LocalCheckpoint) -> None:
    async def run() -> None:
        policy = await started(make_policy(checkpoint))
        with pytest.raises(NotFound, match="no variant 'formal'"):
            await policy.begin(ask_all(["Hello"], variant="formal"))
        policy.close()

    asyncio.run(run())
