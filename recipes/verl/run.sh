#!/usr/bin/env bash
# verl's trainer with Steerward's reward manager; further settings are passed on.
set -euo pipefail
: "${STEERWARD_URL:=http://127.0.0.1:8000}"

exec python -m verl.trainer.main_ppo \
  reward.reward_manager.source=importlib \
  reward.reward_manager.name=SteerwardRewardManager \
  reward.reward_manager.module.path=pkg://steerward.clients.verl \
  +reward.custom_reward_function.reward_kwargs.url="${STEERWARD_URL}" \
  "$@"
