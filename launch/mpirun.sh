#!/usr/bin/env bash
# mpirun with what this program needs: root allowed, one thread a rank unless OMP_NUM_THREADS says
# otherwise, more ranks than cores allowed, no busy waiting against each other.
# Usage: launch/mpirun.sh RANKS PROGRAM [ARGUMENTS...]
# Example: launch/mpirun.sh 2 build/release/emo train configs/tiny.yaml parallel.ep=2
set -euo pipefail
source "$(dirname "$0")/usage.sh"
[[ ${1:-} =~ ^[1-9][0-9]*$ ]] || wrong_usage "'${1:-}' is not a number of ranks"
[ $# -ge 2 ] || wrong_usage "which program?"
ranks=$1
shift
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
# Where these are closed, mpirun would open something of its own there and print into it.
[ -e /proc/$$/fd/0 ] || exec 0</dev/null
[ -e /proc/$$/fd/1 ] || exec 1>/dev/null
[ -e /proc/$$/fd/2 ] || exec 2>/dev/null
[ ! -t 2 ] || export EMO_TERMINAL=1  # ranks write to a pipe; the progress line needs to know
forwarded=()
[ -z "${EMO_ISA:-}" ] || forwarded+=(-x EMO_ISA)  # to other hosts too
exec mpirun "${forwarded[@]}" --oversubscribe --bind-to none --mca mpi_yield_when_idle 1 \
  --mca btl_vader_single_copy_mechanism none \
  -n "$ranks" "$@"
