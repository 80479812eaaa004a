#!/usr/bin/env bash
# Builds build/<preset>/emo, or the targets that are named. Sets up first (launch/setup.sh).
# Usage: launch/build.sh [release|dev|asan|tsan|fuzz|cuda] [TARGET...]
# Example: launch/build.sh release emo
set -euo pipefail
source "$(dirname "$0")/usage.sh"
cd "$(dirname "$0")/.."
preset=${1:-release}
shift || true
case $preset in
  release|dev|asan|tsan|fuzz|cuda) ;;
  *) wrong_usage "no preset '$preset'; there are release, dev, asan, tsan, fuzz and cuda" ;;
esac
for target in "$@"; do case $target in -*) wrong_usage "'$target' is not a target" ;; esac; done
if [ "$preset" = cuda ]; then ./launch/setup_full.sh; else ./launch/setup.sh; fi
if [ ! -e "build/$preset/build.ninja" ]; then
  configured=$(cmake --preset "$preset" 2>&1) || { printf '%s\n' "$configured" >&2; exit 1; }
fi
./launch/build_progress.sh cmake --build "build/$preset" ${*:+--target "$@"}
printf '[build %3ds] build/%s is up to date\n' "$SECONDS" "$preset" >&2
