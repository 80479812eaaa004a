#!/usr/bin/env bash
# Cuts a model folder of the released model's shape (13.6B parameters, 27 GB in bf16) to a quarter of its
# experts: seconds, bytes a second, resident memory. The folder is written sparse, so it takes no room; the
# result takes 6.9 GB, and a folder that is left takes none. Five minutes at most.
# Usage: tests/bench/cut_large_model.sh [--layers N] [--folder DIR] [--json]
# Example: tests/bench/cut_large_model.sh --layers 4
set -euo pipefail
source "$(dirname "$0")/../../launch/usage.sh"
only_known_options "$@"
cd "$(dirname "$0")/../.."
exec ./tests/bench/prepare.sh plain tests/bench/cut_large_model.py "$@"
