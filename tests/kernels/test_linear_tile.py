from __future__ import annotations

import pytest

from steerward.kernels.linear_tile import choose_blocks


@pytest.mark.parametrize("num_outputs", [1, 2, 10, 19, 23, 1024, 1500])
@pytest.mark.parametrize("width", [1, 19, 64, 1024, 4096, 8192])
@pytest.mark.parametrize("all_outputs", [True, False])
def test_blocks_are_powers_of_two_that_fit_the_registers(
    num_outputs: int, width: int, all_outputs: bool
) -> None:
    blocks = choose_blocks(num_outputs=num_outputs, width=width, all_outputs=all_outputs)
    for size in (blocks.rows, blocks.outputs, blocks.lanes, blocks.num_warps):
        assert size >= 1
        assert size & (size - 1) == 0
    assert 1 <= blocks.num_warps <= 8
    partial_sums_per_thread = blocks.rows * blocks.outputs * blocks.lanes / 32 / blocks.num_warps
    assert partial_sums_per_thread <= (64 if num_outputs <= 1024 else 128)
    if all_outputs:
        assert blocks.outputs >= num_outputs


def test_one_row_of_the_first_gate_layer_occupies_many_multiprocessors() -> None:
    blocks = choose_blocks(num_outputs=1024, width=4096, all_outputs=False)
    assert 1024 // blocks.outputs >= 128
