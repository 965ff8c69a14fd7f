"""One of two processes that generate a group together; prints its advantages as JSON.

    python -m tests.training.align.grpo.process FOLDER

Its samples are those that its rank has: two of a group of four.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from steerward.training.align.grpo.aggregation import Min
from tests.training.align.grpo.cases import PROMPTS, column, trainer_of

ONE = [0.0, 3.0, 1.0, 2.0]
TWO = [1.0, 5.0, 2.0, 4.0]


def main() -> None:
    """Generate once, and print what this process learns from."""
    rank = int(os.environ["RANK"])
    local = slice(2 * rank, 2 * rank + 2)
    trainer = trainer_of(
        Path(sys.argv[1]) / str(rank),
        [column("one", ONE[local]), column("two", TWO[local])],
        settings={"per_device_train_batch_size": 2, "ddp_backend": "gloo"},
        aggregation=Min(),
        diagnostic_every=1,
    )
    trainer.model.train()
    batch = trainer._generate_and_score_completions([{"prompt": PROMPTS[0]}] * 2)
    trainer.current_gradient_accumulation_steps = 1
    trainer.compute_loss(trainer.model, batch)
    result = {
        "advantages": batch["advantages"].tolist(),
        "table": list(trainer._logs["advantages"]),
        "min_norm": trainer._metrics["train"]["pareto/min_norm"],
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
