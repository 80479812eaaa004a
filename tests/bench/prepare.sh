#!/usr/bin/env bash
# Sets up and builds what a benchmark needs, then runs its Python part.
# Usage: tests/bench/prepare.sh full|plain tests/bench/SCRIPT.py [ARGUMENTS...]
#   full: with build/python-full, which has torch and transformers (6 GB); plain: build/python is enough
set -euo pipefail
cd "$(dirname "$0")/../.."
case ${1:-} in
  full) setup=./launch/setup_full.sh python=build/python-full/bin/python ;;
  plain) setup=./launch/setup.sh python=build/python/bin/python ;;
  *) echo "usage: $0 full|plain SCRIPT.py [ARGUMENTS...]" >&2; exit 64 ;;
esac
shift
"$setup"
./launch/build.sh release emo
exec "$python" "$@"
