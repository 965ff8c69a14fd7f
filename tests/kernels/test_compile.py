# ruff: noqa: TID252 (these tests are a package of whichever name the root gives it)
"""Compiles every kernel to machine code, without a GPU, exactly as the launchers would."""

from __future__ import annotations

import itertools
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from triton.runtime.jit import mangle_type

from steerward.kernels.aggregate import kernel as aggregate
from steerward.kernels.gating_mlp import kernel as gating_mlp
from steerward.kernels.launch import Launch
from steerward.kernels.pooled_heads import kernel as pooled_heads
from steerward.kernels.prefix_attention import AttentionLayout, LayoutTables, QueryRun, Span
from steerward.kernels.prefix_attention import kernel as prefix_attention

from .cases import DTYPES, Maker, dtype_name, gate

pytestmark = pytest.mark.compile

# Bytes of shared memory that one block may use, by compute capability.
SHARED_MEMORY_LIMITS = {80: 163 * 1024, 90: 227 * 1024, 100: 227 * 1024}
# Per thread. The assembler may spill a pointer or two for occupancy; a thread's partial sums are
# 256 bytes, and those must stay in registers.
MAX_SPILLED_BYTES = 64
META = Maker("meta", torch.Generator())


@pytest.fixture(autouse=True)
def _empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make every test compile, whatever an earlier run left behind."""
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path / "cache"))


def _plan_pooled_heads(dtype: torch.dtype) -> list[Launch]:
    positions_N = META.indices(100, below=9)
    heads_launches, _ = pooled_heads.plan(
        META.normal(9, 4096, dtype=dtype), positions_N, META.weight(19, 4096), None
    )
    odd_launches, _ = pooled_heads.plan(
        META.normal(9, 65, dtype=dtype), positions_N, META.weight(23, 65), META.normal(23)
    )
    one_launches, _ = pooled_heads.plan(
        META.normal(9, 8192, dtype=dtype), positions_N, META.weight(1, 8192), META.normal(1)
    )
    return [*heads_launches, *odd_launches, *one_launches]


def _plan_gating_mlp(dtype: torch.dtype) -> list[Launch]:
    armorm = gate(META, hidden=4096, gate_hidden=1024, objectives=19, layers=4)
    odd = gate(
        META,
        hidden=65,
        gate_hidden=33,
        objectives=23,
        layers=2,
        activation="selu",
        normalisation="none",
    )
    single = gate(META, hidden=4096, gate_hidden=1, objectives=2, layers=1)
    launches: list[Launch] = []
    for hidden, arguments in ((4096, armorm), (65, odd), (4096, single)):
        hidden_TH, positions_P = META.normal(9, hidden, dtype=dtype), META.indices(8, below=9)
        planned, _ = gating_mlp.plan(hidden_TH, positions_P, **arguments)
        launches.extend(planned)
    return launches


def _plan_aggregate(dtype: torch.dtype) -> list[Launch]:
    launches: list[Launch] = []
    for objectives in (1, 16, 19, 23):
        planned, _ = aggregate.plan(
            META.normal(100, objectives, dtype=dtype),
            META.normal(8, objectives, dtype=dtype),
            META.indices(100, below=8),
            META.weight(objectives, objectives),
        )
        launches.extend(planned)
    return launches


def _plan_prefix_attention(dtype: torch.dtype, *, head_size: int, capability: int) -> list[Launch]:
    prompt = Span(0, 300)
    layout = AttentionLayout(
        (QueryRun(0, 300, (), prompt), QueryRun(300, 420, (prompt,), Span(300, 420)))
    )
    tables = LayoutTables.build(layout).to(torch.device("meta"))
    # As transformers hands them over: heads in front, but tokens first in memory.
    query = META.normal(1, 420, 32, head_size, dtype=dtype).transpose(1, 2)
    key = META.normal(1, 420, 8, head_size, dtype=dtype).transpose(1, 2)
    launches: list[Launch] = []
    for sliding_window, softcap in ((None, None), (4096, 50.0)):
        planned, _ = prefix_attention.plan(
            query,
            key,
            key,
            tables,
            scale=0.1,
            sliding_window=sliding_window,
            softcap=softcap,
            capability=capability,
        )
        launches.extend(planned)
    return launches


def _source(launch: Launch) -> ASTSource:
    """Return what Triton would compile for a launch with aligned buffers.

    As at a real launch: an int of 1 becomes a constant, and a multiple of 16 and an aligned
    pointer are marked as such, unless the kernel forbids it.
    """
    signature: dict[str, str] = {}
    constants: dict[str, Any] = {}
    attributes: dict[tuple[int, ...], list[list[Any]]] = {}
    for i, param in enumerate(launch.kernel.params):
        value = {**launch.arguments, **launch.constants}[param.name]
        is_size = isinstance(value, int) and not param.do_not_specialize
        if param.name in launch.constants or value is None or (is_size and value == 1):
            signature[param.name], constants[param.name] = "constexpr", value
            continue
        signature[param.name] = mangle_type(value)
        is_pointer = isinstance(value, torch.Tensor) and not param.do_not_specialize_on_alignment
        if is_pointer or (is_size and value % 16 == 0):
            attributes[(i,)] = [["tt.divisibility", 16]]
    return ASTSource(launch.kernel, signature, constants, attributes)


def _compile(launch: Launch, capability: int) -> Any:
    return triton.compile(
        _source(launch),
        target=GPUTarget("cuda", capability, 32),
        options={"num_warps": launch.num_warps, "num_stages": launch.num_stages},
    )


def _resources(cubin: bytes, path: Path) -> dict[str, int]:
    """Return what the assembler reserved per thread: registers, stack and local memory bytes."""
    path.write_bytes(cubin)
    report = subprocess.run(
        [triton.knobs.nvidia.cuobjdump.path, "--dump-resource-usage", path],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    ).stdout
    return {name: int(count) for name, count in re.findall(r"(REG|STACK|LOCAL):(\d+)", report)}


@pytest.mark.parametrize("capability", sorted(SHARED_MEMORY_LIMITS), ids=lambda c: f"sm_{c}")
@pytest.mark.parametrize(
    ("plan", "dtype"),
    [
        *((_plan_pooled_heads, dtype) for dtype in DTYPES),
        *((_plan_gating_mlp, dtype) for dtype in DTYPES),
        (_plan_aggregate, torch.float32),
    ],
    ids=lambda value: dtype_name(value) or value.__name__.removeprefix("_plan_"),
)
def test_every_launch_compiles_within_the_chip(
    plan: Callable[[torch.dtype], list[Launch]],
    dtype: torch.dtype,
    capability: int,
    tmp_path: Path,
) -> None:
    for launch in plan(dtype):
        _assert_fits(launch, capability, tmp_path / "kernel.cubin")


@pytest.mark.parametrize(
    ("dtype", "head_size", "capability"),
    [
        *itertools.product(DTYPES, (64, 128, 256), (80, 90)),
        *((torch.bfloat16, head_size, 100) for head_size in (64, 128, 256)),
        *((torch.bfloat16, 80, capability) for capability in (80, 90)),
    ],
    ids=lambda value: dtype_name(value) or str(value),
)
def test_attention_compiles_within_the_chip(
    dtype: torch.dtype, head_size: int, capability: int, tmp_path: Path
) -> None:
    launches = _plan_prefix_attention(dtype, head_size=head_size, capability=capability)
    for launch in launches:
        _assert_fits(launch, capability, tmp_path / "kernel.cubin")


def _assert_fits(launch: Launch, capability: int, path: Path) -> None:
    compiled = _compile(launch, capability)
    cubin = compiled.asm["cubin"]
    assert len(cubin) > 0
    assert compiled.metadata.shared <= SHARED_MEMORY_LIMITS[capability]
    used = _resources(cubin, path)
    assert used["REG"] * 32 * launch.num_warps <= 65_536, (launch.kernel.__name__, used)
    assert used["STACK"] + used["LOCAL"] <= MAX_SPILLED_BYTES, (launch.kernel.__name__, used)


@pytest.mark.parametrize(("capability", "matrix"), [(80, "mma.sync"), (90, "wgmma.mma_async")])
def test_attention_multiplies_on_tensor_cores_and_loads_ahead(capability: int, matrix: str) -> None:
    launches = _plan_prefix_attention(torch.bfloat16, head_size=128, capability=capability)
    ptx = _compile(launches[0], capability).asm["ptx"]
    assert matrix in ptx
    # 16 bytes at a time, so strides and pointers are known to be aligned.
    assert re.search(r"cp\.async\.cg\.shared\.global \[[^]]+\], \[[^]]+\], 0x10", ptx)


def test_relu_is_not_a_maximum_that_drops_nan() -> None:
    """On the device ``max(NaN, 0)`` is 0; the interpreter's is NaN and would not show it."""
    first = _plan_gating_mlp(torch.bfloat16)[0]
    assert first.constants["ACTIVATION"] == "relu"
    assert "max.f32" not in _compile(first, 90).asm["ptx"]


def test_armorm_needs_one_launch_per_gate_layer() -> None:
    names = [launch.kernel.__name__ for launch in _plan_gating_mlp(torch.bfloat16)[:4]]
    assert names == ["_hidden_layer_kernel"] * 3 + ["_output_layer_kernel"]
