#!/usr/bin/env bash
# What reading token files costs. Makes, in a folder that it removes again (2.7 GB of room), the files of
# configs/mixes/OLMoE-mix-0824.txt, 16 TB of holes that take no room, one file of 60 million random ids in documents of
# 500, and a folder as emo prepare writes it of 10 million documents. Prints a table of what `emo bench data` says of them.
# Two minutes and a half; --cover goes through a whole epoch of the mix in both orders, and sees that no chunk stands twice: five
# minutes more. --olmo-core puts the newest release of OLMo-core into build/olmo-core and times its loader on the 60
# million ids, in turn with emo.
# Usage: tests/bench/data.sh [--program FILE] [--folder DIR] [--cover] [--olmo-core]
# Example: tests/bench/data.sh --folder /scratch
set -euo pipefail
source "$(dirname "$0")/../../launch/usage.sh"
cd "$(dirname "$0")/../.."
program=build/release/emo
folder=${TMPDIR:-/tmp}
cover=()
olmo_core=false
while [ $# -gt 0 ]; do
  case "$1" in
    --program) program=${2:-}; shift ;;
    --folder) folder=${2:-}; shift ;;
    --cover) cover=(--cover) ;;
    --olmo-core) olmo_core=true ;;
    *) wrong_usage "what is $1?" ;;
  esac
  shift
done
[ -x "$program" ] || wrong_usage "--program: '$program' is no program; ./launch/build.sh makes build/release/emo"
[ -d "$folder" ] || wrong_usage "--folder: '$folder' is no folder"
work=$(mktemp -d "$folder/emo-data-XXXXXX")
trap 'rm -rf "$work"' EXIT

build/python/bin/python - "$work" <<'PYTHON'
import json
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

# What emo prepare writes of 10 million documents of 40 tokens on average, in shards of 100 million tokens.
prepared = work / "prepared"
prepared.mkdir()
lengths = numpy.random.default_rng(2).integers(1, 80, 10_000_000)
record = numpy.dtype([("end", "<u8"), ("bytes", "<u8"), ("source", "<u4"), ("context", "<u4")])
shards = []
for first in range(0, len(lengths), 2_500_000):
    records = numpy.zeros(2_500_000, record)
    records["end"] = numpy.cumsum(lengths[first:first + 2_500_000])
    name = f"tokens-{len(shards):05d}"
    records.tofile(prepared / f"{name}.index")
    tokens = int(records["end"][-1])
    numpy.random.default_rng(first).integers(1, 60_000, tokens, dtype=numpy.uint16).tofile(prepared / f"{name}.npy")
    shards.append({"name": name, "tokens": tokens, "documents": len(records), "sha256": ""})
(prepared / "dataset.json").write_text(json.dumps({
    "format": "emo-tokens-1", "dtype": "uint16", "vocab_size": 60_000, "eos_id": 0, "tokenizer_sha256": "",
    "sources": ["made up"], "shards": shards}))
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
"$program" data index "$work/ids.npy" --index "$work/index" --vocab-size 100278 --eos-id 100257 --quiet >/dev/null
row "the same with an index: documents have numbers" "data.path=$work/ids.npy" "data.index=$work/index" --rows 8000
row "the same by best fit" "data.path=$work/ids.npy" "data.index=$work/index" data.documents=best_fit --rows 8000
row "10 M documents of emo prepare" "data.path=$work/prepared" --rows 8000
row "the same by best fit" "data.path=$work/prepared" data.documents=best_fit --rows 8000
row "the mix, 16 TB, order made" "${mix[@]}" "${reference[@]}" "data.index=$work/index" --rows 10
row "the mix, order found" "${mix[@]}" "${reference[@]}" "data.index=$work/index" --rows 10 ${cover[@]+"${cover[@]}"}
row "the mix, order ours" "${mix[@]}" --rows 10 ${cover[@]+"${cover[@]}"}

# Steps of half a second, as 8 rows take on a GPU, each of which asks for its rows when it begins.
echo
echo "| 8 rows a step of 0.5 s | ms waited before the first step | % of the time waited later |"
echo "|---|---|---|"
for delay in 0 20; do
  for index in "" "$work/index"; do
    "$program" bench data "${common[@]}" "data.path=$work/ids.npy" "data.index='$index'" train.batch=8 --rows 8 --passes 1 \
      --steps 20 --step-seconds 0.5 --read-delay-ms "$delay" | build/python/bin/python -c '
import json, sys
r = json.load(sys.stdin)
print("| {} ms in every read{} | {:.1f} | {:.4f} |".format(sys.argv[1], ", with an index" if sys.argv[2] else "",
      1e3 * r["seconds_waited_first"], 100 * r["share_waited"]))' "$delay" "$index"
  done
done

[ "$olmo_core" = true ] || exit 0
# Its torch is ours, and stands in for the release that it asks for: its loader moves no tensor to a device.
./launch/setup_transformers.sh
if [ ! -e build/olmo-core/complete ]; then
  rm -rf build/olmo-core
  /usr/bin/python3 -m venv build/olmo-core
  echo "$(readlink -f build/python)/lib/python3.11/site-packages" >build/olmo-core/lib/python3.11/site-packages/emo.pth
  pip() { build/olmo-core/bin/pip install --quiet --disable-pip-version-check "$@"; }
  pip --no-deps ai2-olmo-core
  build/olmo-core/bin/python -c '
import importlib.metadata
for line in importlib.metadata.requires("ai2-olmo-core"):
    if "extra" not in line and not line.startswith("torch"):
        print(line)' >build/olmo-core/requirements.txt
  pip -r build/olmo-core/requirements.txt sympy 2>/dev/null
  touch build/olmo-core/complete
fi
# Million tokens/s: OLMo-core with no and with one worker process, and emo on one thread, which always finds documents;
# three times in turn, of which each best counts.
for turn in 1 2 3; do
  for workers in 0 1; do
    LD_LIBRARY_PATH=build/absent-cuda build/olmo-core/bin/python tests/bench/olmo_core_loader.py "$work/ids.npy" \
      "$work/olmo-core-$turn-$workers" "$workers" 2>/dev/null >"$work/olmo-core.$workers.$turn"
  done
  for filter in false true; do
    "$program" bench data "${common[@]}" "data.path=$work/ids.npy" --rows 8192 --passes 1 "data.repetition_filter=$filter" \
      >"$work/emo.$filter.$turn"
  done
done
build/python/bin/python - "$work" <<'PYTHON'
import json
import pathlib
import sys

work = pathlib.Path(sys.argv[1])


def best(name: str, key: str) -> str:
    return f"{max(json.loads((work / f'{name}.{turn}').read_text())[key] for turn in (1, 2, 3)) / 1e6:.0f}"


version = json.loads((work / "olmo-core.0.1").read_text())["version"]
print("\n| million tokens/s | rows | rows and documents | rows, documents, repetition filter |\n|---|---|---|---|")
for workers, name in ((0, "no worker process"), (1, "one worker process")):
    print(f"| OLMo-core {version}, {name} |", " | ".join(best(f"olmo-core.{workers}", key) for key in ("rows", "spans", "filter")), "|")
key = "tokens_per_second"
print(f"| emo, one thread | | {best('emo.false', key)} | {best('emo.true', key)} |")
PYTHON
