#!/usr/bin/env bash
# emo's training step on one rank and on two (ep 2, dp 2), with one thread and the same rows a rank, so that
# the batch doubles with the ranks; beside them two single ranks at the same time that know nothing of each
# other, which is the most that two ranks can reach on this machine. Prints tokens/s, the ratio to one rank,
# the efficiency, and memory a rank beside the formula (memory_formula.py). About a minute and a half a round.
# Usage: tests/bench/scaling.sh [ROUNDS] [--batch ROWS_OF_A_RANK] [--steps N] [--layers N] [--minutes M] [--json]
# Example: tests/bench/scaling.sh 1 --json
set -euo pipefail
source "$(dirname "$0")/../../launch/usage.sh"
only_known_options "$@"
cd "$(dirname "$0")/../.."
exec ./tests/bench/prepare.sh plain tests/bench/scaling.py "$@"
