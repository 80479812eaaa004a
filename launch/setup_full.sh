#!/usr/bin/env bash
# Installs launch/requirements-full.txt into a private folder that all clones of this user share, and
# links it as build/python-full.
# Usage: launch/setup_full.sh
# Example: ./launch/setup_full.sh && ls build/python-full/bin
set -euo pipefail
source "$(dirname "$0")/usage.sh"
no_arguments "$@"
cd "$(dirname "$0")/.."
./launch/setup.sh
key=$(sha256sum launch/requirements-full.txt | cut -c1-16)
folder="${XDG_CACHE_HOME:-${HOME:-/tmp}/.cache}/emo/python-full-$key"
if [ ! -e "$folder/complete" ]; then
  printf '[setup] installing torch with its CUDA packages and transformers (6 GB)\n' >&2
  (
    flock 9
    [ -e "$folder/complete" ] && exit 0
    rm -rf "$folder"
    /usr/bin/python3 -m venv "$folder"
    "$folder/bin/pip" install --quiet --disable-pip-version-check -r launch/requirements-full.txt >&2
    touch "$folder/complete"
  ) 9>"$folder.lock"
fi
ln -sfn "$folder" build/python-full
