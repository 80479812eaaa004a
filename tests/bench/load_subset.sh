#!/usr/bin/env bash
# Opens a model of 2 GB, an eighth of its experts, and the model cut to those, each from a cold page cache:
# bytes read from the disk, seconds, resident memory. Half a minute; 2.4 GB of room while it runs.
# Usage: tests/bench/load_subset.sh [--layers N] [--folder DIR] [--json]
set -euo pipefail
cd "$(dirname "$0")/../.."
exec ./tests/bench/prepare.sh plain tests/bench/load_subset.py "$@"
