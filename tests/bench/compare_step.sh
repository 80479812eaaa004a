#!/usr/bin/env bash
# emo's training step, in fp32 and in bf16, beside transformers' OLMoE of the same size, with its grouped_mm
# experts (fp32 and bf16) and with its eager ones: the same 4 x 1024 tokens, 2 threads each, run in turn.
# Prints a table with the ratio to the best peer. Three minutes a round; a peer's run is cut off at 150 s.
# Usage: tests/bench/compare_step.sh [ROUNDS] [--steps N] [--layers N] [--limit SECONDS] [--minutes M]
#        [--json]
# Example: tests/bench/compare_step.sh 1 --json
set -euo pipefail
source "$(dirname "$0")/../../launch/usage.sh"
only_known_options "$@"
cd "$(dirname "$0")/../.."
exec ./tests/bench/prepare.sh full tests/bench/compare_step.py "$@"
