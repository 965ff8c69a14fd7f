"""One of two processes that compute a loss of MAPL together; prints loss and metrics as JSON.

    python -m tests.training.align.mapl.process policy|reward BASE FOLDER

The reference of the policy lies beside BASE. Rows of its rank have other numbers of conversations
than those of the other.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from transformers import AutoModelForCausalLM
from trl.trainer.dpo_config import DPOConfig
from trl.trainer.reward_config import RewardConfig

from steerward.training.align.mapl.batch import encode_rows
from steerward.training.align.mapl.dpo_trainer import MaplDPOTrainer
from steerward.training.align.mapl.reward_trainer import MaplRewardTrainer
from tests.training.align.mapl.samples import (
    INTER,
    INTRA,
    PAIRS,
    load_reward_model,
    load_tokenizer,
    options,
    policy_encoder,
    reward_encoder,
)

ROWS = ([*INTER, PAIRS[0]], [*INTRA, PAIRS[1]])
"""Of each rank."""


def trainer_of(kind: str, base: Path, work: Path, **settings: Any) -> Any:
    """Return a trainer of all rows."""
    rows = [*ROWS[0], *ROWS[1]]
    given: dict[str, Any] = {**options(work), **settings}
    if kind == "policy":
        return MaplDPOTrainer(
            model=AutoModelForCausalLM.from_pretrained(base),
            ref_model=AutoModelForCausalLM.from_pretrained(base.with_name("reference")),
            args=DPOConfig(**given),
            train_dataset=encode_rows(rows, policy_encoder(base)).dataset,
            processing_class=load_tokenizer(base),
        )
    return MaplRewardTrainer(
        model=load_reward_model(base),
        args=RewardConfig(**given, max_length=None),
        train_dataset=encode_rows(rows, reward_encoder(base)).dataset,
        processing_class=load_tokenizer(base),
    )


def told(trainer: Any, places: range) -> dict[str, Any]:
    """Return loss and metrics of some rows."""
    trainer.model.train()
    rows = [trainer.train_dataset[place] for place in places]
    batch = trainer._prepare_inputs(trainer.data_collator(rows))
    loss = trainer.compute_loss(trainer.model, batch).item()
    return {"loss": loss, "metrics": dict(trainer._metrics["train"])}


def main() -> None:
    """Compute the loss of one rank's rows, and print it."""
    kind, base, work = sys.argv[1:]
    rank = int(os.environ["RANK"])
    trainer = trainer_of(kind, Path(base), Path(work) / str(rank), ddp_backend="gloo")
    print(json.dumps(told(trainer, range(3 * rank, 3 * rank + 3))))


if __name__ == "__main__":
    main()
