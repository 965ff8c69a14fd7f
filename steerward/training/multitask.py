"""The model that is trained: a backbone under the heads and the gate that shape it.

Axis legend: N responses, P prompts or pairs, K objectives, T packed tokens, H hidden.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from steerward.gating.network import GatingNetwork
from steerward.models.backbone import Backbone
from steerward.models.packing import PackedBatch
from steerward.protocol.errors import CheckpointRefused
from steerward.training.config import BackboneConfig
from steerward.training.losses import bradley_terry, calibrated_mse, next_token_loss
from steerward.training.mixture import packed_of
from steerward.training.noise import mask_tokens, shift_positions

_MOST_PREDICTED_TOKENS = 2048


class MultiTaskModel(nn.Module):
    """A backbone with the heads and the gate that shape it.

    Args:
        backbone: To be trained.
        num_objectives: Heads, K.
        num_raters: Scales that ratings come on.
        config: Weights of the losses, and noise.
        mask_token_id: What masked tokens are replaced by.
    """

    def __init__(
        self,
        backbone: Backbone,
        *,
        num_objectives: int,
        num_raters: int,
        config: BackboneConfig,
        mask_token_id: int | None = None,
    ) -> None:
        super().__init__()
        if config.masked_share > 0 and mask_token_id is None:
            raise CheckpointRefused(
                f"masked_share is {config.masked_share}, but the tokenizer of {config.start} has "
                "no mask token; set it to 0"
            )
        self.backbone = backbone
        self.heads = nn.Linear(backbone.hidden_size, num_objectives)
        nn.init.normal_(self.heads.weight, std=0.02)
        nn.init.zeros_(self.heads.bias)
        self.gate = GatingNetwork.random(
            hidden_size=backbone.hidden_size,
            gate_hidden_size=64,
            num_hidden_layers=1,
            num_objectives=num_objectives,
            temperature=1.0,
            # Standardised rewards: a mean of K of them would have almost no spread.
            scale=float(num_objectives) ** 0.5,
        )
        self.slope = nn.Parameter(torch.ones(num_raters))
        self.offset = nn.Parameter(torch.zeros(num_raters))
        self._config = config
        self._mask_token_id = mask_token_id

    def forward(self, **step: Any) -> dict[str, Tensor]:
        """Return the loss of a step, its parts, and the share of pairs that are ranked right."""
        batch = packed_of(step).to(self.backbone.device)
        seen = self._noisy(batch) if self.training else batch
        hidden_TH = self.backbone.all_states(seen).float()
        # Autocast would round the small layers on top for no gain.
        with torch.autocast(hidden_TH.device.type, enabled=False):
            losses, margins_P = self._losses(batch, hidden_TH, step)
        config = self._config
        weights = {
            "ratings": config.rating_weight,
            "gate": config.gate_weight,
            "category": config.category_weight,
            "within": config.within_weight,
            "language": config.language_weight,
        }
        total = sum((weights[name] * loss for name, loss in losses.items()), torch.zeros(()))
        parts = {name: loss.detach() for name, loss in losses.items()}
        if len(margins_P):
            parts["accuracy"] = (margins_P > 0).float().mean()
        return {"loss": total, **parts}

    def _noisy(self, batch: PackedBatch) -> PackedBatch:
        config = self._config
        if config.masked_share > 0:
            assert self._mask_token_id is not None
            batch = mask_tokens(batch, share=config.masked_share, mask_token_id=self._mask_token_id)
        if config.shifted_share > 0:
            positions = min(config.max_tokens, self.backbone.max_positions)
            batch = shift_positions(batch, share=config.shifted_share, max_positions=positions)
        return batch

    def _losses(
        self, batch: PackedBatch, hidden_TH: Tensor, step: dict[str, Any]
    ) -> tuple[dict[str, Tensor], Tensor]:
        """Return the parts of the loss, and the margins of the pairs."""
        rewards_NK = self.heads(hidden_TH[batch.last_positions_N])
        gates_PK = self.gate(hidden_TH[batch.gating_positions_P])
        scores_N = (gates_PK[batch.prompt_index_N] * rewards_NK).sum(dim=-1)
        chosen, rejected = step["pairs"]
        response, objective, rater = step["ratings"]
        losses = {
            "ratings": calibrated_mse(
                rewards_NK,
                response_R=response,
                objective_R=objective,
                rater_R=rater,
                labels_R=step["labels"],
                slope=self.slope,
                offset=self.offset,
            ),
            "gate": bradley_terry(scores_N[chosen], scores_N[rejected]),
        }
        for name in ("category", "within"):
            higher, lower, about = step[name]
            losses[name] = bradley_terry(rewards_NK[higher, about], rewards_NK[lower, about])
        if self._config.language_weight > 0:
            losses["language"] = self._language_loss(batch, hidden_TH)
        return losses, (scores_N[chosen] - scores_N[rejected]).detach()

    def _language_loss(self, batch: PackedBatch, hidden_TH: Tensor) -> Tensor:
        targets_T = torch.full_like(batch.input_ids_T, -100)
        for run in batch.layout.runs:
            inside = slice(run.start, run.end - 1)
            targets_T[inside] = batch.input_ids_T[run.start + 1 : run.end]
        embedding = self.backbone.model.get_input_embeddings()
        assert isinstance(embedding, nn.Embedding)
        return next_token_loss(
            hidden_TH, embedding.weight, targets_T=targets_T, max_tokens=_MOST_PREDICTED_TOKENS
        )
