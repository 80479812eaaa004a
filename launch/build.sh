#!/usr/bin/env bash
# Builds build/<preset>/emo.  Usage: launch/build.sh [release|dev|asan|tsan|cuda] [target...]
set -euo pipefail
cd "$(dirname "$0")/.."
preset=${1:-release}
shift || true
case $preset in
  release|dev|asan|tsan|cuda) ;;
  *) echo "build: no preset '$preset'; there are release, dev, asan, tsan and cuda" >&2; exit 64 ;;
esac
if [ "$preset" = cuda ]; then ./launch/setup_full.sh; else ./launch/setup.sh; fi
[ -e "build/$preset/build.ninja" ] || cmake --preset "$preset" >&2
cmake --build "build/$preset" ${*:+--target "$@"} >&2
printf '[build %3ds] build/%s is up to date\n' "$SECONDS" "$preset" >&2
