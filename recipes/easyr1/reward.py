"""EasyR1's reward function, under the names that it looks for in a file."""

from steerward.clients.easyr1 import REWARD_NAME, REWARD_TYPE, compute_score

__all__ = ["REWARD_NAME", "REWARD_TYPE", "compute_score"]
