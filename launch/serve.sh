#!/usr/bin/env bash
# Installs the checkout and serves a detector: launch/serve.sh --export=detector.zip [--port=8000 ...]
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

use_environment serve
exec "$PYTHON" -u -m promptmad_jax.serve "$@"
