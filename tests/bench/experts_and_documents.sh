#!/usr/bin/env bash
# What a token costs in emo's training step
#   against the number of routed experts, with as many experts a token and as many rows an expert (so the batch
#   grows with the experts), and
#   against the length of documents, at the same tokens,
# each with its parts apart. All settings run in turn; two threads. About two minutes a round.
# Usage: tests/bench/experts_and_documents.sh [ROUNDS] [--only experts|documents] [--steps N] [--layers N]
#        [--minutes M] [--json]
# Example: tests/bench/experts_and_documents.sh 1 --only experts
set -euo pipefail
source "$(dirname "$0")/../../launch/usage.sh"
only_known_options "$@"
cd "$(dirname "$0")/../.."
exec ./tests/bench/prepare.sh plain tests/bench/experts_and_documents.py "$@"
