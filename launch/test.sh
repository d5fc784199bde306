#!/usr/bin/env bash
# Installs the checkout and runs its tests on the CPU, two files at a time, since compiling is mostly
# single-threaded. Arguments go to pytest: launch/test.sh -k mesh
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

use_environment test,serve
cd "$CHECKOUT"
JAX_PLATFORMS=cpu exec "$PYTHON" -m pytest -n 2 --dist loadfile --no-loadscope-reorder "$@"
