"""SkyRL's entry point with the environment registered: edit the URL."""

import hydra  # pyright: ignore[reportMissingImports]
import ray  # pyright: ignore[reportMissingImports]
from skyrl_train.entrypoints.main_base import (  # pyright: ignore[reportMissingImports]
    BasePPOExp,
    config_dir,
    validate_cfg,
)
from skyrl_train.utils import initialize_ray  # pyright: ignore[reportMissingImports]

from steerward.clients.skyrl import register


@ray.remote(num_cpus=1)
def run(config):
    """Train; the environment is registered in the process that runs it."""
    register("steerward", "http://127.0.0.1:8000")
    BasePPOExp(config).run()


@hydra.main(config_path=config_dir, config_name="ppo_base_config", version_base=None)
def main(config):
    """Start Ray and the training."""
    validate_cfg(config)
    initialize_ray(config)
    ray.get(run.remote(config))  # pyright: ignore[reportFunctionMemberAccess]


if __name__ == "__main__":
    main()  # pyright: ignore[reportCallIssue]
