#!/usr/bin/env bash
# slime's trainer with a Steerward server as its remote reward model.
set -euo pipefail
: "${STEERWARD_URL:=http://127.0.0.1:8000}"

exec python train.py \
  --rm-type remote_rm \
  --rm-url "${STEERWARD_URL}/compat/slime?keys=1" \
  --reward-key score \
  --eval-reward-key score \
  "$@"
