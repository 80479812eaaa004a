#!/usr/bin/env bash
# Do the tests that compare two ways of computing hold where rounding falls otherwise?
set -euo pipefail
usage() {
  cat <<'TEXT'
usage: tests/parallel/moved_rounding.sh [--seeds N] [--ranks "1 2 4"] [build folder]

Runs the tests that compare layouts, devices and ways through the model on moved rounding: under EMO_ISA portable,
avx2 and avx512 (those that this CPU has), with embeddings scaled by 1 + 1e-7, with 2 and 3 threads (which must change
nothing), and with other weights, seeds 1 to N (50). Prints for each program and variant how many runs
there were, how many weights tests passed over (ties within rounding; or too sensitive to it), and how many tests
failed. Exits 1 where one did. Default build folder: build/release. Takes about half an hour on two cores.
TEXT
}
seeds=50
ranks="1 2 4"
build=build/release
while [ $# -gt 0 ]; do
  case "$1" in
    --help) usage; exit 0 ;;
    --seeds) seeds=$2; shift ;;
    --ranks) ranks=$2; shift ;;
    -*) usage >&2; exit 64 ;;
    *) build=$1 ;;
  esac
  shift
done
cd "$(dirname "$0")/../.."
mpirun=$PWD/launch/mpirun.sh
tests=$build/tests
compared='*Layouts*:*OnBackEnds*:*AgainstReference*:*AgainstHost*:Exchange.*:Precision.*:Pools*:Router*:*Device*:Kernels*:Decoding*'
# A pattern that no test has would compare nothing, silently.
listed=$("$tests/model_test" --gtest_list_tests; "$tests/device_test" --gtest_list_tests; "$tests/eval_test" --gtest_list_tests
         "$tests/parallel_test" --ranks=1 --gtest_list_tests)
IFS=: read -ra patterns <<<"$compared"
for pattern in "${patterns[@]}"; do
  name=${pattern//[*.]/}
  grep -q "$name" <<<"$listed" || { echo "no test is called $pattern" >&2; exit 1; }
done
table=$(mktemp)
trap 'rm -f "$table"' EXIT
failing=0

# one VARIANT NAME COMMAND...: a line of the table
one() {
  local variant=$1 name=$2 status=0 output
  shift 2
  output=$("$@" --gtest_color=no --gtest_filter="$compared" 2>&1) || status=$?
  local over failed
  over=$(grep -c '^\[PASSED OVER\]' <<<"$output" || true)
  failed=$(grep -c '^\[  FAILED  \].* ms)' <<<"$output" || true)
  if [ "$status" != 0 ]; then
    failing=1
    printf '%s %s:\n' "$variant" "$name" >&2
    grep -A6 ': Failure' <<<"$output" >&2 || tail -5 <<<"$output" >&2
    [ "$failed" != 0 ] || failed=1
  fi
  printf '%s %s %s %s\n' "$variant" "$name" "$over" "$failed" >>"$table"
}

programs() {
  one "$1" model "$tests/model_test"
  one "$1" device "$tests/device_test"
  one "$1" eval "$tests/eval_test"
  one "$1" parallel_self "$tests/parallel_test" --ranks=1
}

layouts() {
  for n in $ranks; do
    one "$1" "parallel_mpi_$n" "$mpirun" "$n" "$tests/parallel_test" "--ranks=$n"
    one "$1" "nccl_stand_in_$n" "$mpirun" "$n" "$tests/nccl_stand_in_test" "--ranks=$n"
  done
}

export OMP_NUM_THREADS=1
for instructions in portable avx2 avx512; do
  EMO_ISA=$instructions "$build/emo" --version >/dev/null 2>&1 || continue
  export EMO_ISA=$instructions
  programs "$instructions"
  layouts "$instructions"
  EMO_TEST_SCALE=1.0000001 programs "$instructions,scaled"
  EMO_TEST_SCALE=1.0000001 layouts "$instructions,scaled"
  for threads in 2 3; do OMP_NUM_THREADS=$threads programs "$instructions,threads"; done
  for seed in $(seq 1 "$seeds"); do EMO_TEST_SEED=$seed programs "$instructions,weights"; done
done

printf '%-20s %-18s %6s %12s %7s\n' variant program runs 'passed over' failed
awk '{ key = $1 " " $2; if (!(key in runs)) order[++n] = key; ++runs[key]; over[key] += $3; failed[key] += $4 }
     END { for (i = 1; i <= n; ++i) { split(order[i], part, " ");
             printf "%-20s %-18s %6d %12d %7d\n", part[1], part[2], runs[order[i]], over[order[i]], failed[order[i]] } }' "$table"
exit "$failing"
