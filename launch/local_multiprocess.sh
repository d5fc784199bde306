#!/usr/bin/env bash
# Trains with N processes on this machine, and restarts all of them when one fails.
#   launch/local_multiprocess.sh N [--devices_per_process=K] [--restarts=R] [--grace=S] -- ARGUMENTS
# ARGUMENTS are those of `promptmad train`. A process has K devices (default 1): GPUs, or parts of the
# CPU without GPUs or with JAX_PLATFORMS=cpu. When one fails, the others notice or are stopped after S
# seconds (90); then all restart from the last checkpoint, up to R times (3), but not after a user's
# mistake (status 2).
#   PROMPTMAD_PYTHON  a Python with the package; if empty, the checkout is installed
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

readonly USER_ERROR=2

fail() {
  echo "error: $1" >&2
  exit "$USER_ERROR"
}

number() {
  [[ "$2" =~ ^[1-9][0-9]*$ || ( "$2" == 0 && "$3" == 0 ) ]] || fail "$1=$2: it must be a number"
  echo "$2"
}

[[ $# -gt 0 && "$1" != -* ]] || fail "give the number of processes: $0 N [OPTIONS] -- ARGUMENTS"
count="$(number N "$1" 1)"
shift
devices=1 restarts=3 grace=90
while [[ $# -gt 0 ]]; do
  case "$1" in
    --devices_per_process=*) devices="$(number --devices_per_process "${1#*=}" 1)" ;;
    --restarts=*) restarts="$(number --restarts "${1#*=}" 0)" ;;
    --grace=*) grace="$(number --grace "${1#*=}" 0)" ;;
    --) shift; break ;;
    *) fail "$1: unknown; arguments of the training go after --" ;;
  esac
  shift
done

if [[ -n "${PROMPTMAD_PYTHON:-}" ]]; then
  PYTHON="$PROMPTMAD_PYTHON"
else
  use_environment export
fi
cd "$CHECKOUT"

# gpus: prints the number of GPUs to divide; 0 if the processes run on the CPU.
gpus() {
  if [[ "${JAX_PLATFORMS:-}" == cpu* ]] || ! command -v nvidia-smi >/dev/null; then
    echo 0
  else
    nvidia-smi --list-gpus | grep -c . || true
  fi
}

free_port() {
  "$PYTHON" -c "import socket; s = socket.socket(); s.bind(('127.0.0.1', 0)); print(s.getsockname()[1])"
}

# start INDEX ADDRESS ARGUMENTS: one process in the background, its lines marked with its index.
start() {
  local index="$1" address="$2" place=()
  shift 2
  if [[ "$gpu_count" -gt 0 ]]; then
    place=("CUDA_VISIBLE_DEVICES=$(seq -s, $((index * devices)) $((index * devices + devices - 1)))")
  else
    place=("JAX_PLATFORMS=cpu" "JAX_NUM_CPU_DEVICES=$devices")
  fi
  env "${place[@]}" PYTHONUNBUFFERED=1 "$PYTHON" -m promptmad_jax.train "$@" \
    --coordinator_address="$address" --num_processes="$count" --process_id="$index" \
    > >(sed -u "s/^/[$index] /") 2> >(sed -u "s/^/[$index] /" >&2) &
  pids[index]=$!
}

# signal NAME: to every process that still runs.
signal() {
  local index
  for index in "${!pids[@]}"; do
    kill -s "$1" "${pids[index]}" 2>/dev/null || true
  done
}

# reap: waits for all; sets `status` to that of the first failure, or to USER_ERROR if any has it.
# After the first failure the others have `grace` seconds.
reap() {
  local index ended deadline=""
  status=0
  while [[ ${#pids[@]} -gt 0 ]]; do
    for index in "${!pids[@]}"; do
      kill -0 "${pids[index]}" 2>/dev/null && continue
      ended=0
      wait "${pids[index]}" || ended=$?
      unset "pids[index]"
      [[ "$ended" -eq 0 ]] && continue
      echo "launch: process $index ended with status $ended" >&2
      [[ "$status" -eq 0 || "$ended" -eq "$USER_ERROR" ]] && status="$ended"
      [[ -n "$deadline" ]] || deadline=$((SECONDS + grace))
    done
    if [[ -n "$deadline" && $SECONDS -ge $deadline && ${#pids[@]} -gt 0 ]]; then
      echo "launch: stopping the others" >&2
      signal KILL
    fi
    sleep 0.2
  done
}

gpu_count="$(gpus)"
if [[ "$gpu_count" -gt 0 && $((count * devices)) -gt "$gpu_count" ]]; then
  fail "$count processes of $devices GPUs, but there are $gpu_count; or set JAX_PLATFORMS=cpu"
fi
stopped=""
trap 'stopped=yes; signal TERM' TERM INT
for ((attempt = 0; ; attempt++)); do
  pids=()
  address="127.0.0.1:$(free_port)"
  for ((index = 0; index < count; index++)); do
    start "$index" "$address" "$@"
  done
  reap
  if [[ "$status" -eq 0 || "$status" -eq "$USER_ERROR" || -n "$stopped" ]]; then
    exit "$status"
  fi
  if [[ "$attempt" -ge "$restarts" ]]; then
    echo "launch: giving up after $restarts restarts" >&2
    exit "$status"
  fi
  echo "launch: restart $((attempt + 1)) of $restarts, from the last checkpoint" >&2
done
