#!/usr/bin/env bash
# emo's training step over several ranks beside the same layers over torch.distributed with Gloo
# (gloo_moe_step.py): experts spread over all ranks, one thread and the same rows a rank, run in turn.
# Prints tokens/s and bytes that a rank sends in a step. About a minute and a half a round with 2 ranks.
# First checks that the Gloo program's gradients are those of one process.
# Usage: tests/bench/compare_ranks.sh [RANKS] [ROUNDS] [--batch ROWS_OF_A_RANK] [--layers N] [--steps N]
#        [--minutes M] [--json]
# Example: tests/bench/compare_ranks.sh 2 1 --layers 2
set -euo pipefail
source "$(dirname "$0")/../../launch/usage.sh"
only_known_options "$@"
cd "$(dirname "$0")/../.."
exec ./tests/bench/prepare.sh full tests/bench/compare_ranks.py "$@"
