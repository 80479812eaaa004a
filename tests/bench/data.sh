#!/usr/bin/env bash
# What reading token files costs. Makes, in a folder that it removes again (2.2 GB of room), the files of
# configs/mixes/OLMoE-mix-0824.txt, 16 TB of holes that take no room, and one file of 60 million random ids in documents
# of 500. Prints a table of what `emo bench data` says of both. One minute; --cover goes through a whole epoch of the mix
# in both orders, and sees that no chunk stands twice: five minutes more.
# Usage: tests/bench/data.sh [--program FILE] [--folder DIR] [--cover]
# Example: tests/bench/data.sh --folder /scratch
set -euo pipefail
source "$(dirname "$0")/../../launch/usage.sh"
cd "$(dirname "$0")/../.."
program=build/release/emo
folder=${TMPDIR:-/tmp}
cover=()
while [ $# -gt 0 ]; do
  case "$1" in
    --program) program=${2:-}; shift ;;
    --folder) folder=${2:-}; shift ;;
    --cover) cover=(--cover) ;;
    *) wrong_usage "what is $1?" ;;
  esac
  shift
done
[ -x "$program" ] || wrong_usage "--program: '$program' is no program; ./launch/build.sh makes build/release/emo"
[ -d "$folder" ] || wrong_usage "--folder: '$folder' is no folder"
work=$(mktemp -d "$folder/emo-data-XXXXXX")
trap 'rm -rf "$work"' EXIT

build/python/bin/python - "$work" <<'PYTHON'
import pathlib
import random
import sys

import numpy

work = pathlib.Path(sys.argv[1])
draw = random.Random(1)
lines = [line.strip() for line in open("configs/mixes/OLMoE-mix-0824.txt") if not line.startswith("#")]
for path in dict.fromkeys(line.split(",")[1].replace("{TOKENIZER}", "tokenizer") for line in lines):
    file = work / "mix" / path
    file.parent.mkdir(parents=True, exist_ok=True)
    with open(file, "wb") as sparse:
        sparse.truncate(4 * int(15.6e12 / 4 / len(lines) * draw.uniform(0.5, 1.5)))
ids = numpy.random.default_rng(0).integers(0, 100256, 60_000_000, dtype=numpy.uint32)
ids[numpy.random.default_rng(1).random(len(ids)) < 1 / 500] = 100257
ids.tofile(work / "ids.npy")
PYTHON

common=(configs/tiny.yaml data.synthetic=none data.eos_id=100257 model.vocab_size=100278 data.sequence_length=4096
        train.batch=1024 --json)
mix=(data.mix=configs/mixes/OLMoE-mix-0824.txt "data.root=$work/mix" data.tokenizer_name=tokenizer)
reference=(data.order=reference data.seed=0)
# row NAME ARGUMENT...: a line of the table, from the object that `emo bench data` prints
row() {
  local name=$1
  shift
  "$program" bench data "${common[@]}" "$@" | build/python/bin/python -c '
import json, sys
r = json.load(sys.stdin)
print("| {} | {} | {:.3f} | {:.3f} | {:.0f} | {:.0f} | {} |".format(sys.argv[1], r["chunks"], r["seconds_to_open"],
      r["seconds_to_first_step"], r["tokens_per_second"] / 1e6, r["resident_bytes"] / 1e6,
      "{:.0f} s".format(r["seconds_to_cover"]) if "seconds_to_cover" in r else "-"))' "$name"
}
echo "| data | chunks | s to open | s to the first step of 1024 rows | million tokens/s, one thread | MB resident | every chunk once |"
echo "|---|---|---|---|---|---|---|"
row "60 M ids in memory" "data.path=$work/ids.npy" --rows 8000
row "the same, repetition filter" "data.path=$work/ids.npy" --rows 8000 data.repetition_filter=true
row "the mix, 16 TB, order made" "${mix[@]}" "${reference[@]}" "data.index=$work/index" --rows 10
row "the mix, order found" "${mix[@]}" "${reference[@]}" "data.index=$work/index" --rows 10 ${cover[@]+"${cover[@]}"}
row "the mix, order ours" "${mix[@]}" --rows 10 ${cover[@]+"${cover[@]}"}
