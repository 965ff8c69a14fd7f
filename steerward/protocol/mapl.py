"""Settings of MAPL for policies, what a job's ``method`` holds and ``steerward align`` takes."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from steerward.protocol.alignment import PolicyTraining
from steerward.protocol.errors import brief
from steerward.protocol.instructions import INSTRUCTION_KINDS, InstructionKind

FOLLOWED = "instructions_followed"
"""Column of MAPL: which share of its prompt's instructions an answer follows."""


class MaplSettings(PolicyTraining):
    """MAPL (arXiv:2505.12845): preference pairs, and what is built of them with instructions.

    Loss of original pairs, of intra rows (one response, two prompts) and of inter rows (a pair,
    with and without instructions), each by DPO's rewards. All defaults are ours.
    """

    lambda_intra: Annotated[float, Field(ge=0)] = 1.0
    """Weight of rows in which the response stays and the instructions vary; 0 leaves them out."""
    lambda_inter: Annotated[float, Field(ge=0)] = 1.0
    """Weight of rows in which the pair stays and instructions are added; 0 leaves them out."""
    min_instructions: Annotated[int, Field(ge=1, le=len(INSTRUCTION_KINDS))] = 2
    """Fewest instructions in a prompt."""
    max_instructions: Annotated[int, Field(ge=1, le=len(INSTRUCTION_KINDS))] = 4
    """Most instructions in a prompt."""
    held_out_kinds: Annotated[list[InstructionKind], Field(max_length=len(INSTRUCTION_KINDS))] = []
    """Kinds of instructions that training does not see, and held-out prompts are given. Default:
    some are drawn, the same for every seed; never combination:repeat_prompt, which no answer alone
    can be asked for."""
    held_out_kinds_share: Annotated[float, Field(gt=0, lt=1)] = 0.25
    """Share of the kinds to hold out, where none is named."""
    min_rows_share: Annotated[float, Field(ge=0.0, le=1.0)] = 0.1
    """Share of the pairs that must give rows, or the run is refused."""
    beta: Annotated[float, Field(gt=0)] = 0.1
    """Of DPO."""
    epochs: Annotated[int, Field(ge=1, le=100)] = 1
    """Passes over the rows of all parts together."""
    batch_size: Annotated[int, Field(ge=1, le=4096)] = 32
    """Rows in one optimiser step, over all devices. A row is two conversations, or four where
    instructions were added to a pair. Where there are as many rows, those that fill no batch are
    left out of an epoch."""
    micro_batch_size: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    """Rows in one forward pass on each device, of two or four conversations; lower saves memory.
    Default: the batch."""

    @model_validator(mode="after")
    def _kinds_are_enough(self) -> Self:
        if self.max_instructions < self.min_instructions:
            raise ValueError(
                f"max_instructions is {self.max_instructions}, below min_instructions "
                f"{self.min_instructions}; raise it"
            )
        num = len(INSTRUCTION_KINDS)
        num_out = len(set(self.held_out_kinds)) or round(self.held_out_kinds_share * num)
        if num - num_out < self.min_instructions:
            raise ValueError(
                f"{num_out} of {num} kinds of instructions are held out, and {num - num_out} left "
                f"for prompts of at least {self.min_instructions}; hold out fewer"
            )
        if self.evaluation_prompts and num_out < self.min_instructions:
            raise ValueError(
                f"{num_out} of {num} kinds of instructions are held out, and held-out prompts "
                f"have at least {self.min_instructions} (min_instructions); hold out more, lower "
                "it, or set evaluation_prompts to 0"
            )
        return self

    @model_validator(mode="after")
    def _names_each_once(self) -> Self:
        names = [FOLLOWED, *self.logged]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise ValueError(
                f"{brief(twice)!r} would be measured twice; name each objective once in logged, "
                f"and {FOLLOWED!r} not at all"
            )
        return self
