#!/usr/bin/env bash
# clang-tidy with the flags of the release build, two files at a time.
# Usage: launch/tidy.sh FILE.cc...
# Example: launch/tidy.sh model/losses.cc model/block.cc
set -euo pipefail
source "$(dirname "$0")/usage.sh"
case "${1:--}" in -*) wrong_usage "which files?" ;; esac
cd "$(dirname "$0")/.."
# Each file alone, where the release build compiles rooms together; what the build generates is the release build's.
# clang does not read gcc's precompiled headers, nor know a few of its flags.
cmake --preset release -B build/tidy -DEMO_ROOMS_TOGETHER=OFF >/dev/null
sed -E -i 's/-Winvalid-pch|-include [^ ]*cmake_pch.hxx|-fopenmp-simd//g; s#build/tidy/generated#build/release/generated#g' build/tidy/compile_commands.json
printf '%s\n' "$@" | xargs -P2 -n4 clang-tidy -p build/tidy --quiet --extra-arg=-Wno-unknown-pragmas --extra-arg=-Wno-unknown-warning-option
