#!/usr/bin/env bash
# Sets up, builds and passes the tests.
# Usage: launch/test.sh           what CI runs: every quick test, formatting, clang-tidy on what changed,
#                                 sanitizers on what needs no torch, and the quick start at a reduced size
#        launch/test.sh --quick   build and quick tests only
#        launch/test.sh --all     the same as CI, with clang-tidy on every file
# Example: ./launch/test.sh --quick
set -euo pipefail
source "$(dirname "$0")/usage.sh"
case "${1:-}" in '' | --quick | --all) ;; *) wrong_usage "there is no option '$1'" ;; esac
[ $# -le 1 ] || wrong_usage "takes one option, not $#"
cd "$(dirname "$0")/.."
mode=${1:-ci}
say() { printf '\n[test %4ds] %s\n' "$SECONDS" "$*" >&2; }
sources() { git ls-files '*.cc' '*.h' '*.cu' '*.cuh'; }

# Files changed in the last four hours of work: CI sees a fresh clone, in which nothing else tells (--all
# reads every file).
changed_sources() {
  local head base
  head=$(git log -1 --format=%ct)
  base=$(git rev-list -1 --before="$((head - 4 * 3600))" HEAD)
  git diff --name-only --diff-filter=d "${base:-$(git hash-object -t tree /dev/null)}" -- '*.cc' | grep -v '^tests/' || true
}

./launch/setup.sh
say "formatting"
sources | xargs clang-format --dry-run --Werror
say "building release"
./launch/build.sh release
say "quick tests"
(cd build/release && ctest --output-on-failure -j2 --no-tests=error)
[ "$mode" = --quick ] && exit 0

say "compiling the GPU's kernels"
./launch/build.sh release cuda_kernels
say "clang-tidy"
if [ "$mode" = --all ]; then files=$(sources | grep '\.cc$' | grep -v '^tests/'); else files=$(changed_sources); fi
[ -z "$files" ] || ./launch/tidy.sh $files

for preset in asan tsan; do
  say "building and testing with $preset"
  ./launch/build.sh "$preset"
  (cd "build/$preset" && ctest --output-on-failure --no-tests=error)
done

say "fuzzing parsers"
./launch/fuzz.sh --seconds 5

say "the quick start's whole path, reduced"
rm -rf runs/quickstart-test
QUICKSTART_FOLDER=runs/quickstart-test QUICKSTART_TOKENS=${QUICKSTART_TOKENS:-150000} ./launch/quickstart.sh
build/python/bin/python tests/launch/quickstart_report_test.py build/release/emo runs/quickstart-test
say "all tests pass"
