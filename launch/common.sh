# shellcheck shell=bash
# Sourced by the launch scripts: finds Python, makes a virtual environment, installs the checkout.

CHECKOUT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"

# usable PYTHON MINORS: succeeds if PYTHON runs, is 3.MINOR and can make virtual environments.
usable() {
  "$1" -c "import sys, venv, ensurepip
sys.exit(sys.version_info[0] != 3 or str(sys.version_info[1]) not in '$2'.split())" >/dev/null 2>&1
}

# find_python MINOR...: prints the first usable python3.MINOR, from the PATH or from pyenv.
find_python() {
  local minor candidate
  for minor in "$@"; do
    for candidate in "python3.$minor" "${PYENV_ROOT:-$HOME/.pyenv}/versions/3.$minor".*/bin/python; do
      if usable "$candidate" "$minor"; then
        echo "$candidate"
        return
      fi
    done
  done
  return 1
}

# default_python: prints python3 if its version is supported, else the newest supported one.
default_python() {
  if usable python3 "11 12 13"; then
    echo python3
  elif ! find_python 13 12 11; then
    echo "error: found no Python 3.11 to 3.13 with venv; install one, or activate a virtual" \
      "environment of such a version" >&2
    return 1
  fi
}

# use_environment EXTRAS: installs the checkout with EXTRAS and sets PYTHON. The environment is
# $PROMPTMAD_VENV, else the active one, else .venv in the checkout. While setup.py is unchanged
# nothing is installed again, so that later runs need no network.
use_environment() {
  local environment="${PROMPTMAD_VENV:-${VIRTUAL_ENV:-$CHECKOUT/.venv}}" base stamp
  PYTHON="$environment/bin/python"
  if [[ ! -x "$PYTHON" ]]; then
    base="$(default_python)"
    "$base" -m venv "$environment"
  fi
  stamp="$environment/.promptmad_jax-$1"
  if ! cmp --silent <(stamp_text) "$stamp"; then
    "$PYTHON" -m pip install --quiet --editable "${CHECKOUT}[$1]"
    stamp_text > "$stamp"
  fi
}

stamp_text() {
  echo "$CHECKOUT"
  cat "$CHECKOUT/setup.py"
}
