#!/usr/bin/env bash
# From a fresh checkout to a trained detector: makes a small data set, trains on it, prints the table
# and the path of the report; 20 images to try `promptmad predict` on lie in examples/. A second call
# continues where the first stopped.
#   PROMPTMAD_WORKDIR  folder for data and results (default: workdir/quickstart in the checkout)
# Arguments are those of `promptmad train`: launch/quickstart.sh --config.train.seed=1
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

timed() {
  local label="$1" begin=$SECONDS
  shift
  "$@"
  echo "[$label: $((SECONDS - begin)) s]"
}

workdir="${PROMPTMAD_WORKDIR:-$CHECKOUT/workdir/quickstart}"
mkdir -p "$workdir"
workdir="$(cd "$workdir" && pwd)"

timed install use_environment export
cd "$CHECKOUT"
# Nothing is downloaded; without this a missing network would slow the run down.
export HF_HUB_OFFLINE=1
timed prepare "$PYTHON" -m promptmad_jax.prepare --dataset=synthetic_mvtec \
  --data_dir="$workdir/data" --examples="$workdir/examples"
timed train "$PYTHON" -m promptmad_jax.train --config=quickstart.py \
  --workdir="$workdir/run" --config.data.data_dir="$workdir/data" "$@"
