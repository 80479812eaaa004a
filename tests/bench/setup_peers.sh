#!/usr/bin/env bash
# Installs what the comparison runs beside us (full torch with its CUDA packages, since `import torch`
# wants them, and transformers: 6 GB) into a private folder. Prints the folder's Python.
set -euo pipefail
folder="${XDG_CACHE_HOME:-${HOME:-/tmp}/.cache}/emo/peers-1"
if [ ! -e "$folder/complete" ]; then
  mkdir -p "$(dirname "$folder")"
  (
    flock 9
    [ -e "$folder/complete" ] && exit 0
    rm -rf "$folder"
    /usr/bin/python3 -m venv "$folder"
    "$folder/bin/pip" install --quiet --disable-pip-version-check torch==2.15.0 transformers==5.23.0 >&2
    touch "$folder/complete"
  ) 9>"$folder.lock"
fi
echo "$folder/bin/python"
