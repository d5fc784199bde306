#!/usr/bin/env bash
# Trains on a Cloud TPU slice: requests it from the queue, installs the checkout on its hosts, runs
# the training on all of them, and repeats that when the slice is preempted.
#   launch/tpu_pod.sh create|install|train|delete|all -- ARGUMENTS
# `all` is create, install and train, again after a preemption or a failure. ARGUMENTS are those of
# `promptmad train`; all hosts must see the workdir and the data (gs://, or a shared disk).
#   TPU_NAME, TPU_ZONE, TPU_TYPE (v5litepod-16), TPU_RUNTIME (v2-alpha-tpuv5-lite)
#   TPU_SPOT=1 for spot capacity; TPU_RESTARTS (100); the project is that of gcloud's configuration
set -euo pipefail

readonly USER_ERROR=2 REQUEUE=75 POLL_SECONDS="${TPU_POLL_SECONDS:-30}"
CHECKOUT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"

fail() {
  echo "error: $1" >&2
  exit "$USER_ERROR"
}

[[ $# -gt 0 ]] || fail "give create, install, train, delete or all"
action="$1"
shift
[[ $# -eq 0 || "$1" == -- ]] || fail "$1: arguments of the training go after --"
[[ $# -eq 0 ]] || shift
name="${TPU_NAME:?error: set TPU_NAME, TPU_ZONE}" zone="${TPU_ZONE:?error: set TPU_ZONE}"

queue() {
  gcloud compute tpus queued-resources "$1" "$name" --zone="$zone" "${@:2}"
}

state() {
  queue describe --format='value(state.state)' 2>/dev/null || echo ABSENT
}

# on_all COMMAND: runs it on every host; returns the worst exit status.
on_all() {
  gcloud compute tpus tpu-vm ssh "$name" --zone="$zone" --worker=all --command="$1"
}

create() {
  local now options=()
  [[ -z "${TPU_SPOT:-}" ]] || options+=(--spot)
  now="$(state)"
  if [[ "$now" == SUSPENDED || "$now" == FAILED ]]; then
    delete
    now=ABSENT
  fi
  if [[ "$now" == ABSENT ]]; then
    queue create --node-id="$name" --accelerator-type="${TPU_TYPE:-v5litepod-16}" \
      --runtime-version="${TPU_RUNTIME:-v2-alpha-tpuv5-lite}" "${options[@]}"
  fi
  until [[ "$(state)" == ACTIVE ]]; do
    case "$(state)" in
      FAILED | SUSPENDED) fail "the request for $name failed; see gcloud compute tpus queued-resources describe" ;;
    esac
    sleep "$POLL_SECONDS"
  done
}

install() {
  gcloud compute tpus tpu-vm scp --recurse "$CHECKOUT" "$name:promptmad" --zone="$zone" --worker=all
  on_all 'cd promptmad && python3 -m venv .venv && .venv/bin/pip install --quiet --editable ".[tpu,gcs]"'
}

# train ARGUMENTS: the same command on every host, which finds its place from Cloud TPU.
train() {
  local arguments=""
  [[ $# -eq 0 ]] || arguments="$(printf ' %q' "$@")"
  on_all "cd promptmad && exec .venv/bin/python -u -m promptmad_jax.train --distributed$arguments"
}

delete() {
  queue delete --force --quiet
}

all() {
  local status restarts="${TPU_RESTARTS:-100}" attempt
  for ((attempt = 0; ; attempt++)); do
    create
    install
    status=0
    train "$@" || status=$?
    if [[ "$status" -eq 0 || "$status" -eq "$USER_ERROR" ]]; then
      return "$status"
    fi
    [[ "$status" -ne "$REQUEUE" ]] || echo "launch: preempted" >&2
    if [[ "$attempt" -ge "$restarts" ]]; then
      echo "launch: status $status; giving up after $restarts restarts" >&2
      return "$status"
    fi
    echo "launch: status $status; restart $((attempt + 1)) of $restarts" >&2
  done
}

case "$action" in
  create | install | delete) "$action" ;;
  train | all) "$action" "$@" ;;
  *) fail "$action: unknown; give create, install, train, delete or all" ;;
esac
