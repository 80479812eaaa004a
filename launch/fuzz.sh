#!/usr/bin/env bash
# Gives the parsers of data files any bytes (libFuzzer, with address and undefined-behaviour sanitizers), one parser after
# another, and says how many inputs each has seen. What it learns is kept in build/fuzz/corpus. Ends with 1 where an input
# ends a parser in another way than an error; the input is then a file in build/fuzz.
# Usage: launch/fuzz.sh [--seconds N] [PARSER...]      N for each parser, 20 if not said; parsers: npy index mix dataset
# Example: launch/fuzz.sh --seconds 300 npy mix
set -euo pipefail
source "$(dirname "$0")/usage.sh"
cd "$(dirname "$0")/.."
seconds=20
parsers=()
while [ $# -gt 0 ]; do
  case "$1" in
    --seconds) seconds=${2:-}; shift ;;
    npy | index | mix | dataset) parsers+=("$1") ;;
    *) wrong_usage "what is $1?" ;;
  esac
  shift
done
case $seconds in '' | *[!0-9]* | 0*) wrong_usage "--seconds: '$seconds' is not a number" ;; esac
[ ${#parsers[@]} -gt 0 ] || parsers=(npy index mix dataset)
./launch/build.sh fuzz "${parsers[@]/#/fuzz_}"
build/python/bin/python tests/fuzz/first_inputs.py build/fuzz/corpus
failed=0
for parser in "${parsers[@]}"; do
  log=build/fuzz/$parser.log
  if build/fuzz/tests/fuzz/fuzz_"$parser" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=1024 -max_len=8192 \
      -artifact_prefix="build/fuzz/$parser-" -print_final_stats=1 "build/fuzz/corpus/$parser" >"$log" 2>&1; then
    printf '[fuzz] %s: %s inputs, all answered\n' "$parser" "$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")" >&2
  else
    printf '[fuzz] %s: FAILED, see %s\n' "$parser" "$log" >&2
    tail -n 40 "$log" >&2
    failed=1
  fi
done
exit $failed
