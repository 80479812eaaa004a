#!/usr/bin/env bash
# Sets up and builds what a benchmark needs, then runs its Python part.
# Usage: tests/bench/prepare.sh full|plain tests/bench/SCRIPT.py [ARGUMENTS...]
#   full: with build/python-full, which has torch and transformers (6 GB); plain: build/python is enough
# Example: tests/bench/prepare.sh plain tests/bench/scaling.py 1 --json
set -euo pipefail
source "$(dirname "$0")/../../launch/usage.sh"
cd "$(dirname "$0")/../.."
case ${1:-} in
  full) setup=./launch/setup_full.sh python=build/python-full/bin/python ;;
  plain) setup=./launch/setup.sh python=build/python/bin/python ;;
  *) wrong_usage "full or plain, not '${1:-}'" ;;
esac
shift
[ -f "${1:-}" ] || wrong_usage "there is no script '${1:-}'"
"$setup"
./launch/build.sh release emo
exec "$python" "$@"
