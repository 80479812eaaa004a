#!/usr/bin/env bash
# From a bare Debian 12 machine to a trained model and a report: sets up, builds, fetches real text of
# eight domains, trains EMO and the standard MoE on it with two MPI ranks, and shows what each loses
# when only a domain's experts are kept. About a minute on two fast cores after set-up and build.
#
# Environment: QUICKSTART_FOLDER (runs/quickstart), QUICKSTART_TOKENS (what each model sees; the
# configs say 1.2M), QUICKSTART_SEED (1).
# Usage: launch/quickstart.sh
# Example: QUICKSTART_FOLDER=runs/second QUICKSTART_SEED=2 ./launch/quickstart.sh
set -euo pipefail
source "$(dirname "$0")/usage.sh"
no_arguments "$@"
cd "$(dirname "$0")/.."
folder=${QUICKSTART_FOLDER:-runs/quickstart}
data=$folder/data
emo=build/release/emo
say() { printf '\n[quick start %4ds] %s\n' "$SECONDS" "$*" >&2; }

if [ -e "$folder/retention.json" ]; then
  cat "$folder/report.txt"
  say "this stands in $folder already; remove the folder to run everything again"
  exit 0
fi
./launch/build.sh release emo

if [ ! -e "$data/train.jsonl" ]; then
  say "fetching text: 9 Debian packages, 58 MB, unpacked and not installed"
  mkdir -p "$data"
  /usr/bin/python3 launch/texts.py "$data.new"
  build/python/bin/python launch/train_tokenizer.py "$data.new/train.jsonl" 2048 "$data.new/tokenizer.json"
  rm -rf "$data.new/packages" "$data"
  mv "$data.new" "$data"
fi
if [ -e "$data/train/dataset.json" ] && ! grep -q '"vocab_size": 2048' "$data/train/dataset.json"; then
  say "the data in $data are another version's: remove $folder, or set QUICKSTART_FOLDER to another folder"
  exit 65
fi
if [ ! -e "$folder/tasks/verses.jsonl" ]; then
  /usr/bin/python3 launch/tasks.py "$data" "$folder/tasks.new" 2>/dev/null
  mv "$folder/tasks.new" "$folder/tasks"
fi
for split in train validation test; do
  if [ ! -e "$data/$split/dataset.json" ]; then
    say "preparing $split"
    rm -rf "${data:?}/$split"
    $emo prepare --tokenizer "$data/tokenizer.json" --output "$data/$split" "$data/$split.jsonl"
  fi
done

overrides=("data.path=$data/train" "run.seed=${QUICKSTART_SEED:-1}" "model.init_seed=${QUICKSTART_SEED:-1}")
[ -z "${QUICKSTART_TOKENS:-}" ] || overrides+=("train.tokens=$QUICKSTART_TOKENS")
for model in emo standard; do
  say "training $model (the same command goes on where it stopped)"
  ./launch/mpirun.sh 2 $emo train "configs/quickstart-$model.yaml" "run.folder=$folder/$model" "${overrides[@]}"
done

say "what is left when only a domain's experts are kept"
./launch/mpirun.sh 2 $emo experts retention "emo=$folder/emo" "standard=$folder/standard" \
  --calibration "$data/validation" --data "$data/test" --ep 2 \
  --output "$folder/retention.json.new" --overwrite | tee "$folder/report.txt"
cat >>"$folder/report.txt" <<EOF
Where things are:
  $folder/retention.json          the numbers above
  $folder/emo                     the model's run; $folder/standard that of the standard MoE
  $folder/*/metrics.jsonl         every step's metrics (docs/metrics.md)
  $folder/data                    documents, tokenizer, token shards
Next:
  build/python/bin/tensorboard --logdir $folder
  $emo experts rank $folder/emo --data $data/validation --label scripture --keep 8 --output scripture.json
  $emo eval $folder/emo --data $data/test --experts scripture.json
  $emo eval $folder/emo --tasks $folder/tasks
  $emo generate $folder/emo --prompt 'And God said' --max-new-tokens 40
  $emo data show $data/train --batch 0 --sequence-length 256
EOF
tail -n 12 "$folder/report.txt"
mv "$folder/retention.json.new" "$folder/retention.json"
say "done"
