# ruff: noqa: TID252 (these tests are a package of whichever name the root gives it)
from __future__ import annotations

import subprocess
import sys
import threading

import pytest
import torch

from steerward.kernels.aggregate import aggregate
from steerward.kernels.dispatch import Backend, choose, override
from steerward.kernels.gating_mlp import gating_mlp
from steerward.kernels.pooled_heads import pooled_heads

from .cases import Maker, gate


def _call_every_op(maker: Maker, *, rows: int) -> None:
    hidden_TH, positions_N = maker.normal(5, 8), maker.indices(rows, below=5)
    rewards_NK = pooled_heads(hidden_TH, positions_N, maker.weight(3, 8))
    arguments = gate(maker, hidden=8, gate_hidden=4, objectives=3, layers=2)
    gates_PK = gating_mlp(hidden_TH, positions_N, **arguments)
    aggregate(rewards_NK, gates_PK, maker.indices(rows, below=max(1, rows)), maker.weight(3, 3))


def _every_op_on(backend: Backend) -> list[tuple[str, Backend]]:
    return [(op, backend) for op in ("pooled_heads", "gating_mlp", "aggregate")]


def test_cpu_tensors_run_on_the_reference() -> None:
    with override(None) as choices:
        _call_every_op(Maker.seeded(0), rows=2)
    assert choices == _every_op_on(Backend.REFERENCE)


@pytest.mark.gpu
def test_cuda_tensors_run_on_triton() -> None:
    with override(None) as choices:
        _call_every_op(Maker.seeded(0, "cuda"), rows=2)
    assert choices == _every_op_on(Backend.TRITON)


@pytest.mark.gpu
def test_cuda_tensors_that_need_a_gradient_run_on_the_reference() -> None:
    maker = Maker.seeded(0, "cuda")
    weight_KH = maker.weight(3, 8).requires_grad_()
    arguments = (maker.normal(5, 8), maker.indices(2, below=5), weight_KH)
    with override(None) as choices:
        assert pooled_heads(*arguments).requires_grad
        with torch.no_grad():
            pooled_heads(*arguments)
    assert choices == [("pooled_heads", Backend.REFERENCE), ("pooled_heads", Backend.TRITON)]


@pytest.mark.parametrize("backend", list(Backend), ids=lambda backend: backend.value)
def test_override_decides_for_every_op(backend: Backend) -> None:
    # Without rows there is nothing to launch, so that the kernels' side runs without a device.
    with override(backend) as choices:
        _call_every_op(Maker.seeded(0), rows=0)
    assert choices == _every_op_on(backend)


def test_override_ends_with_its_block_and_the_inner_one_wins() -> None:
    tensor = torch.zeros(1)
    with override(Backend.TRITON) as outer:
        with override(Backend.REFERENCE) as inner:
            assert choose("op", tensor) is Backend.REFERENCE
        assert choose("op", tensor) is Backend.TRITON
    assert (outer, inner) == ([("op", Backend.TRITON)], [("op", Backend.REFERENCE)])
    with pytest.raises(KeyError), override(Backend.TRITON):
        raise KeyError
    assert choose("op", tensor) is Backend.REFERENCE


def test_override_does_not_reach_other_threads() -> None:
    seen: list[Backend] = []
    with override(Backend.TRITON):
        thread = threading.Thread(target=lambda: seen.append(choose("op", torch.zeros(1))))
        thread.start()
        thread.join(timeout=60)
    assert seen == [Backend.REFERENCE]


def test_triton_is_refused_where_a_gradient_is_needed() -> None:
    tensor = torch.zeros(1, requires_grad=True)
    with override(Backend.TRITON) as choices:
        with pytest.raises(RuntimeError, match="no backward pass"):
            choose("op", None, tensor)
        with torch.no_grad():
            assert choose("op", None, tensor) is Backend.TRITON
    assert choices == [("op", Backend.TRITON)]


def test_importing_the_ops_loads_neither_triton_nor_the_rest_of_the_package() -> None:
    script = """
import sys
from steerward.kernels.aggregate import aggregate
from steerward.kernels.gating_mlp import gating_mlp
from steerward.kernels.pooled_heads import pooled_heads
foreign = [
    name
    for name in sys.modules
    if name.split(".")[0] in ("triton", "transformers")
    or (name.startswith("steerward.") and not name.startswith("steerward.kernels"))
]
assert not foreign, foreign
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=120)
