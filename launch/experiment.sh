#!/usr/bin/env bash
# Trains EMO beside what it is compared with, cuts experts in every way, and writes a report.
# Sets up and builds first. The same command goes on where it stopped; what is done is not done again.
#
#   ./launch/experiment.sh retention            about 75 minutes on two cores
#   ./launch/experiment.sh retention --quick    about 5: one seed, fewer tokens and documents
#
# Writes runs/retention (or --folder DIR): data, models, results and report/{index.html,retention.json,
# retention.csv}. See docs/retention.md.
set -euo pipefail
cd "$(dirname "$0")/.."
if [ "${1:-}" != retention ]; then
  sed -n '2,9p' "$0" | sed 's/^# \?//'
  case "${1:---help}" in -h | --help) exit 0 ;; esac
  printf "experiment.sh: there is no experiment '%s'; there is: retention\n" "$1" >&2
  exit 64
fi
shift
./launch/build.sh release emo
exec build/python/bin/python -m launch.retention.experiment "$@"
