#!/usr/bin/env bash
# emo's training step beside transformers' OLMoE of the same size, as interleaved runs with 2 threads
# each, so that a noisy neighbour meets both. Prints a line per pair and the ratio of medians.
# Usage: tests/bench/compare_step.sh [PAIRS] [grouped_mm|eager]
set -euo pipefail
cd "$(dirname "$0")/../.."
pairs=${1:-3}
experts=${2:-grouped_mm}
export OMP_NUM_THREADS=2
./launch/setup_full.sh
python=build/python-full/bin/python
./launch/build.sh release emo
results=$(mktemp)
trap 'rm -f "$results"' EXIT
for ((pair = 0; pair < pairs; ++pair)); do
  ours=$(./build/release/emo bench step configs/bench-107m.yaml --steps 3 --json | tr -d '\n')
  theirs=$("$python" tests/bench/olmoe_step.py "$experts" 3 2>/dev/null)
  printf '{"ours": %s, "theirs": %s}\n' "$ours" "$theirs" >>"$results"
done
"$python" - "$results" <<'PYTHON'
import json, statistics, sys
rows = [json.loads(line) for line in open(sys.argv[1])]
ours = [row["ours"]["tokens_per_second"] for row in rows]
theirs = [statistics.median(row["theirs"]["tokens_per_second"]) for row in rows]
name = "transformers OLMoE " + rows[0]["theirs"]["experts"]
print(f"| run | emo tokens/s | {name} tokens/s | ratio |\n|---|---|---|---|")
for i, (a, b) in enumerate(zip(ours, theirs)):
    print(f"| {i + 1} | {a:.0f} | {b:.0f} | {a / b:.2f} |")
print(f"| median | {statistics.median(ours):.0f} | {statistics.median(theirs):.0f} | "
      f"{statistics.median(ours) / statistics.median(theirs):.2f} |")
peak = statistics.median(row["ours"]["peak_fraction"] for row in rows)
print(f"emo at {100 * peak:.0f} % of the matrix-product peak measured in the same run")
PYTHON
