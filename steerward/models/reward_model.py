"""The reward model: the only place that knows backbone, heads and gate together.

Axis legend: R read positions, N candidates, P prompts, K objectives, H hidden.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn

from steerward.gating.aggregate import preference_scores
from steerward.gating.network import GatingNetwork
from steerward.gating.steering import direction_scores, weighted_coefficients
from steerward.models.backbone import Backbone
from steerward.models.chat import ChatEncoder, EncodedConversation, Turn
from steerward.models.heads import Architecture, RewardHeads
from steerward.models.output import RewardOutput
from steerward.models.packing import Group, PackedBatch, group_conversations
from steerward.models.plan import BatchPlan
from steerward.models.prefix_tree import PrefixTree
from steerward.protocol.errors import (
    CheckpointRefused,
    InputTooLong,
    InvalidRequest,
    NonFiniteScore,
    brief,
)
from steerward.protocol.items import PromptTokens
from steerward.protocol.objectives import ObjectiveSet


class RewardModel(nn.Module):
    """Scores conversations: backbone, heads, gate and transform, with their names.

    Built by `steerward.models.checkpoint.load_reward_model`.

    Args:
        backbone: Causal language model.
        chat: Encoder of conversations for this backbone.
        heads: One per objective.
        gate: None for checkpoints without a gating network.
        transform_KK: Reward transform; the identity where there is none.
        objectives: Names in head order.
        architecture: Layout the checkpoint came in.
        weight_version: Identity of the weights.
        max_input_tokens: Longest prompt plus candidate.

    Raises:
        CheckpointRefused: If widths or counts of the parts do not fit together.
    """

    transform: Tensor

    def __init__(
        self,
        *,
        backbone: Backbone,
        chat: ChatEncoder,
        heads: RewardHeads,
        gate: GatingNetwork | None,
        transform_KK: Tensor,
        objectives: ObjectiveSet,
        architecture: Architecture,
        weight_version: str,
        max_input_tokens: int,
    ) -> None:
        super().__init__()
        _check_widths(backbone, heads, gate, objectives)
        self.backbone = backbone
        self.chat = chat
        self.heads = heads
        self.gate = gate
        self.register_buffer("transform", transform_KK.float())
        self.objectives = objectives
        self.architecture: Architecture = architecture
        self.weight_version = weight_version
        self.max_input_tokens = max_input_tokens
        self.to(backbone.device)
        self.eval()

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return self.backbone.device

    @property
    def num_parameters(self) -> int:
        """Numbers in backbone, heads, gate and transform."""
        tensors = [*self.parameters(), self.heads.weight, self.transform]
        return sum(tensor.numel() for tensor in tensors)

    @property
    def gates_are_per_prompt(self) -> bool:
        """Whether gates and coefficients are those of a prompt, shared by its candidates."""
        return self.gate is None or self.gate.reads == "prompt"

    @property
    def gate_reads_prompt(self) -> bool:
        """Whether there is a gate that reads a token of the prompt."""
        return self.gate is not None and self.gate.reads == "prompt"

    def limit_input(self, max_input_tokens: int) -> None:
        """Refuse inputs above a limit of the user's.

        Raises:
            CheckpointRefused: If it is more than the positions of the model reach.
        """
        if max_input_tokens > self.max_input_tokens:
            raise CheckpointRefused(
                f"max_input_tokens {max_input_tokens:,} is more than this model reaches, "
                f"{self.max_input_tokens:,}"
            )
        self.max_input_tokens = max_input_tokens

    def encode(self, context: Sequence[Turn], answers: Sequence[str]) -> list[EncodedConversation]:
        """Return each answer encoded behind the context.

        Raises:
            InvalidRequest: If the chat template refuses the turns.
            InputTooLong: If a conversation is longer than `max_input_tokens`.
        """
        return list(self.encode_each(context, answers))

    def encode_each(
        self, context: Sequence[Turn], answers: Sequence[str]
    ) -> Iterator[EncodedConversation]:
        """Yield what `encode` returns; after one that is too long, nothing more is encoded."""
        for i, conversation in enumerate(self.chat.encode_each(context, answers)):
            self._check_length(i, len(conversation.ids), prompt_length=conversation.prompt_length)
            yield conversation

    def group_tokens(self, tokens: PromptTokens) -> Group:
        """Return the group of a prompt and candidates that come as ids, exactly as they are.

        Raises:
            InvalidRequest: If an id is not in the vocabulary, a conversation opens otherwise than
                the tokenizer lets it, or the gate's position is needed and missing.
            InputTooLong: If a conversation is longer than `max_input_tokens`.
        """
        prompt, candidates = tokens.prompt, tokens.candidates
        for i, candidate in enumerate(candidates):
            length = len(prompt) + len(candidate)
            self._check_length(i, length, prompt_length=len(prompt))
        self._check_vocabulary(prompt, param="prompt")
        for i, candidate in enumerate(candidates):
            self._check_vocabulary(candidate, param=f"candidates[{i}]")
            self.chat.check_opening([*prompt[:2], *candidate[:1]])
        if tokens.gating_position is None and self.gate_reads_prompt:
            raise InvalidRequest(
                "the gate of this reward model reads a token of the prompt; give its index in "
                "prompt, that of the token that closes the turn before the candidate, as "
                "gating_position: it is never searched for (POST /v1/tokenize tells it)",
                param="gating_position",
            )
        # Without a gate that reads it, any position is as good.
        suffixes = [tuple(candidate) for candidate in candidates]
        return Group(tuple(prompt), suffixes, tokens.gating_position or 0)

    def _check_length(self, candidate: int, length: int, *, prompt_length: int) -> None:
        if length > self.max_input_tokens:
            raise InputTooLong(
                f"prompt and candidate have {length:,} tokens "
                f"({prompt_length:,} + {length - prompt_length:,}), limit "
                f"{self.max_input_tokens:,}; shorten them, they are never cut here",
                param=f"candidates[{candidate}]",
            )

    def _check_vocabulary(self, ids: Sequence[int], *, param: str) -> None:
        size = self.backbone.vocabulary_size
        if min(ids) < 0 or max(ids) >= size:
            place = next(i for i, token_id in enumerate(ids) if not 0 <= token_id < size)
            raise InvalidRequest(
                f"token id {brief(str(ids[place]))} is not in the vocabulary of this reward model, "
                f"0 to {size - 1:,}; use the ids of its own tokenizer (POST /v1/tokenize)",
                param=f"{param}[{place}]",
            )

    @torch.inference_mode()
    def forward(self, batch: PackedBatch) -> RewardOutput:
        """Return the output of a packed batch, on this model's device and without a sync."""
        batch = batch.to(self.device)
        hidden_RH = self.backbone(batch)
        rewards_NK = self.heads(hidden_RH, batch.last_rows_N)
        if self.gate is None:
            if len(self.objectives) > 1:
                return RewardOutput(rewards_NK, None, None, None)
            return RewardOutput(rewards_NK, rewards_NK[:, 0], None, torch.ones_like(rewards_NK))
        if self.gates_are_per_prompt:
            gates = self._prompt_gates(self.gate, hidden_RH, batch)
            gate_rows_N = batch.prompt_index_N
        else:
            gates = self.gate(hidden_RH, batch.last_rows_N)
            gate_rows_N = torch.arange(rewards_NK.shape[0], device=self.device)
        scores_N, coefficients = preference_scores(
            rewards_NK, gates, transform_KK=self.transform, prompt_index_N=gate_rows_N
        )
        return RewardOutput(rewards_NK, scores_N, gates, coefficients)

    def forward_apart(self, batches: Sequence[PackedBatch]) -> RewardOutput:
        """Return the output of `BatchPlan.batches`, run one after the other, on the device.

        Rows are those of `BatchPlan.leaf_rows`, gates and coefficients by candidate.
        """
        outputs = [(self(batch), batch.num_candidates) for batch in batches]
        # A pass has one candidate and its gates, or none.
        return RewardOutput.joined([output for output, count in outputs if count])

    def plan(self, tree: PrefixTree | None = None) -> BatchPlan:
        """Return an empty plan of a forward pass.

        Args:
            tree: Prompts that are known already; none by default.
        """
        return BatchPlan(tree or PrefixTree(), needs_gates=self.gate_reads_prompt)

    def gate_rows(self, batch: PackedBatch) -> Tensor:
        """Return the row of each candidate in the gates and coefficients of a batch."""
        return (
            batch.prompt_index_N if self.gate_reads_prompt else torch.arange(batch.num_candidates)
        )

    def score(self, groups: Sequence[Group]) -> RewardOutput:
        """Return the output of groups in host memory, with gates for each candidate.

        Candidates are in order of the groups.

        Raises:
            NonFiniteScore: If a number came out as NaN or infinity.
        """
        plan = self.plan()
        for group in groups:
            plan.add(group)
        batch = plan.batch()
        output = self(batch).to_host().by_candidate(self.gate_rows(batch))
        broken = output.non_finite_candidates()
        if broken:
            raise NonFiniteScore(f"candidate {broken[0]} of the batch has NaN or infinite rewards")
        return output

    def _prompt_gates(self, gate: GatingNetwork, hidden_RH: Tensor, batch: PackedBatch) -> Tensor:
        """Return gates of the prompts that are read now, then those of prompts read before."""
        parts: list[Tensor] = []
        if batch.gate_slots:
            gates_PK = gate(hidden_RH, batch.gating_rows_P)
            for slot, gates_K in zip(batch.gate_slots, gates_PK, strict=True):
                slot.gates_K = gates_K
            parts.append(gates_PK)
        known = [slot.gates_K for slot in batch.known_gates if slot.gates_K is not None]
        assert len(known) == len(batch.known_gates)
        if known:
            parts.append(torch.stack(known))
        if not parts:
            return hidden_RH.new_zeros((0, gate.num_objectives), dtype=torch.float32)
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def direction_scores(self, rewards_NK: Tensor, directions_VK: Tensor) -> Tensor:
        """Return the dot product of rewards with each direction, (N, V), in float64.

        Rewards are standardised first if the checkpoint holds the reference moments of all its
        objectives.

        Args:
            rewards_NK: Raw rewards.
            directions_VK: Unit directions in head order.
        """
        moments: dict[str, Tensor] = {}
        if self.objectives.has_reference:
            known = self.objectives.objectives
            means, spreads = zip(*((o.reference_mean, o.reference_std) for o in known), strict=True)
            moments["reference_mean_K"] = torch.tensor(means, dtype=torch.float64)
            moments["reference_std_K"] = torch.tensor(spreads, dtype=torch.float64)
        return direction_scores(rewards_NK.double(), directions_VK.double(), **moments)

    def weighted_coefficients(self, weights: Mapping[str, float]) -> Tensor:
        """Return the coefficients of raw rewards, (K,), with weights in place of the gates.

        Raises:
            UnknownObjective: If they name an objective that the model does not have.
        """
        # Named, for the default is of the process: whoever loads a model beside this changes it.
        vector = self.objectives.vector(weights, param="weights")
        weights_K = torch.tensor(vector, dtype=torch.float32)
        return weighted_coefficients(weights_K, self.transform.cpu())

    def score_conversation(self, messages: Sequence[Turn]) -> RewardOutput:
        """Return the output of one whole conversation that ends with the assistant's turn."""
        conversations = self.encode(messages[:-1], [messages[-1]["content"]])
        return self.score(group_conversations(conversations))


def _check_widths(
    backbone: Backbone, heads: RewardHeads, gate: GatingNetwork | None, objectives: ObjectiveSet
) -> None:
    readers = {"heads": heads.weight}
    if gate is not None:
        readers["gate"] = gate.weights[0]
    for name, weight in readers.items():
        if weight.shape[-1] != backbone.hidden_size:
            raise CheckpointRefused(
                f"the {name} of the checkpoint read {weight.shape[-1]} channels, its backbone "
                f"gives {backbone.hidden_size}"
            )
    if heads.num_objectives != len(objectives):
        raise CheckpointRefused(
            f"{heads.num_objectives} heads, but {len(objectives)} objective names"
        )
