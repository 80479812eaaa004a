#!/usr/bin/env bash
# Runs a build with Ninja and shows one line of it: percent, steps, time left. On a terminal the line is
# rewritten; elsewhere there is a new one every 20 seconds. What else the build says (warnings, errors) is
# shown in full. Ends with the build's exit code.
# Usage: launch/build_progress.sh COMMAND [ARGUMENTS...]
# Example: launch/build_progress.sh cmake --build build/release
set -euo pipefail
source "$(dirname "$0")/usage.sh"
case "${1:--}" in -*) wrong_usage "needs a command" ;; esac

every=20        # seconds between lines where they cannot be rewritten
mark='@step'    # what Ninja's own lines begin with: steps done, of how many

# "3 min", "40 s"
duration() { if [ "$1" -ge 90 ]; then printf '%d min' $((($1 + 30) / 60)); else printf '%d s' "$1"; fi; }

show() {  # done, total
  local line
  line=$(printf '[build %3ds] %3d %%, %d of %d steps' "$SECONDS" $((100 * $1 / $2)) "$1" "$2")
  # The first seconds tell nothing about the rest.
  [ "$SECONDS" -lt 5 ] || line+=", about $(duration $((SECONDS * ($2 - $1) / $1))) left"
  if [ -t 2 ]; then printf '\r%s\033[K' "$line" >&2; else printf '%s\n' "$line" >&2; fi
}

clear_line() { if [ -t 2 ]; then printf '\r\033[K' >&2; fi; }

show_progress() {
  local last=0 line word done_steps total
  while IFS= read -r line || [ -n "$line" ]; do
    case $line in
      "$mark "*)
        read -r word done_steps total word <<<"$line"
        [ "$done_steps" -gt 0 ] || continue
        if [ -t 2 ] || [ $((SECONDS - last)) -ge "$every" ]; then show "$done_steps" "$total"; last=$SECONDS; fi
        ;;
      '-- '* | 'ninja: no work to do.') ;;   # CMake's own lines, where a list of files has changed
      *) clear_line; printf '%s\n' "$line" >&2 ;;
    esac
  done
  clear_line
}

NINJA_STATUS="$mark %f %t " "$@" 2>&1 | show_progress
