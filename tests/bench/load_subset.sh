#!/usr/bin/env bash
# Opens a model of 2 GB, an eighth of its experts, and the model cut to those, each from a cold page cache:
# bytes read from the disk, seconds, resident memory. Half a minute; 2.4 GB of room while it runs.
# Usage: tests/bench/load_subset.sh [--layers N] [--folder DIR] [--json]
# Example: tests/bench/load_subset.sh --layers 2
set -euo pipefail
source "$(dirname "$0")/../../launch/usage.sh"
only_known_options "$@"
cd "$(dirname "$0")/../.."
exec ./tests/bench/prepare.sh plain tests/bench/load_subset.py "$@"
