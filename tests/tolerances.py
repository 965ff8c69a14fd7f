"""How far the same score may lie apart when it is computed in other company, per dtype: one table.

Absolute for numbers up to one, else relative to the largest of those compared.
"""

from __future__ import annotations

import torch

SCORE_TOLERANCE = {
    # Sums of a few thousand products in another order: about 1e-6 here, with room for others.
    torch.float32: 1e-5,
    # 8 bits of precision, rounded after every operation of every layer.
    torch.bfloat16: 6e-2,
    # 11 bits.
    torch.float16: 1e-2,
    # A last bit of float32 may round an input the other way, by 1/127 of its token's largest.
    torch.int8: 6e-2,
}
