#!/usr/bin/env bash
# clang-tidy with the flags of the release build, two files at a time.
# Usage: launch/tidy.sh FILE.cc...
# Example: launch/tidy.sh model/router.cc model/block.cc
set -euo pipefail
source "$(dirname "$0")/usage.sh"
case "${1:--}" in -*) wrong_usage "which files?" ;; esac
cd "$(dirname "$0")/.."
# clang does not read gcc's precompiled headers, nor know a few of its flags.
mkdir -p build/tidy
sed -E 's/-Winvalid-pch|-include [^ ]*cmake_pch.hxx|-fopenmp-simd//g' build/release/compile_commands.json >build/tidy/compile_commands.json
printf '%s\n' "$@" | xargs -P2 -n4 clang-tidy -p build/tidy --quiet --extra-arg=-Wno-unknown-pragmas --extra-arg=-Wno-unknown-warning-option
