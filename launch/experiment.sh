#!/usr/bin/env bash
# Trains EMO beside what it is compared with, cuts experts in every way, and writes a report.
# Sets up and builds first. The same command goes on where it stopped; what is done is not done again.
#
# Usage: launch/experiment.sh retention [--quick] [--folder DIR] [--tokens N] [--text DIR] [--tuned-domains A,B] [--jobs N]
# Example: ./launch/experiment.sh retention            about 75 minutes on two cores
#          ./launch/experiment.sh retention --quick    about 5: one seed, fewer tokens and documents
#
# Writes runs/retention (or --folder DIR): data, models, results and report/{index.html,retention.json,
# retention.csv}. See docs/retention.md.
set -euo pipefail
source "$(dirname "$0")/usage.sh"
cd "$(dirname "$0")/.."
[ "${1:-}" = retention ] || wrong_usage "there is no experiment '${1:-}'; there is: retention"
shift
case "${1:-}" in -h | --help) exec /usr/bin/python3 -m launch.retention.experiment --help ;; esac
only_known_options "$@"
./launch/build.sh release emo
exec build/python/bin/python -m launch.retention.experiment "$@"
