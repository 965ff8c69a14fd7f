"""Verifiable instructions: each can be said, checked in a response, and drawn for one.

One registry for the data of MAPL, the instruction judge of CGPO and the IFEval-like metric.
"""

from steerward.instructions.conflict import conflicts
from steerward.instructions.draw import draw
from steerward.instructions.instruction import Instruction, read_instructions
from steerward.instructions.kind import Kind
from steerward.instructions.language import LANGUAGES, language_of
from steerward.instructions.loose import loose_variants
from steerward.instructions.registry import KINDS

__all__ = [
    "KINDS",
    "LANGUAGES",
    "Instruction",
    "Kind",
    "conflicts",
    "draw",
    "language_of",
    "loose_variants",
    "read_instructions",
]
