#!/usr/bin/env bash
# Makes `import torch` and releases of transformers work with build/python, for the tests that compare
# with them: installs launch/requirements-transformers-*.txt into private folders that all clones of
# this user share, links them as build/transformers-4, -5.0 and -5, and makes build/absent-cuda.
# Does nothing, within a second, when all is there. "newest" adds the newest release that pip gives, as
# build/transformers-newest; its version is printed. Fails where pip cannot say which it is.
# Usage: launch/setup_transformers.sh [newest]
# Example: ./launch/setup_transformers.sh newest
# Use (-5.0 and -newest hold what differs from -5, which must stand behind them):
#   LD_LIBRARY_PATH=build/absent-cuda PYTHONPATH=build/transformers-5 build/python/bin/python ...
#   LD_LIBRARY_PATH=build/absent-cuda PYTHONPATH=build/transformers-newest:build/transformers-5 ...
set -euo pipefail
source "$(dirname "$0")/usage.sh"
case "${1:-}" in
  "" | newest) ;;
  *) wrong_usage "there is no '$1'" ;;
esac
cd "$(dirname "$0")/.."
[ -e build/python/complete ] || ./launch/setup.sh
cache="${XDG_CACHE_HOME:-${HOME:-/tmp}/.cache}/emo"
mkdir -p "$cache"

# Runs "$3 FOLDER.part" once for all clones, and links FOLDER as build/$1.
provide() {
  local name=$1 folder="$cache/$1-$2" make=$3
  if [ ! -e "$folder" ]; then
    (
      flock 9
      [ -e "$folder" ] && exit 0
      rm -rf "$folder.part"
      mkdir -p "$folder.part"
      "$make" "$folder.part"
      mv "$folder.part" "$folder"
    ) 9>"$folder.lock"
  fi
  ln -sfn "$folder" "build/$name"
}

install_transformers() {
  local line
  line=$(basename "$1" | sed 's/transformers-\([^-]*\)-.*/\1/')
  printf '[setup] installing transformers %s\n' "$line" >&2
  build/python/bin/pip install --quiet --no-compile --disable-pip-version-check --no-deps --target "$1" \
    -r "launch/requirements-transformers-$line.txt" >&2
}

python_pip() { build/python/bin/python -m pip "$@" --quiet --disable-pip-version-check --retries 2 --timeout 15; }

# Of pip's report of what it would install: lines of name==version.
names_and_versions() {
  build/python/bin/python -c 'import json, sys
for entry in json.load(sys.stdin)["install"]: print("{name}=={version}".format(**entry["metadata"]))'
}

# What the newest release needs and neither build/python nor the pinned 5 line has.
install_newest() {
  local report list
  local -a packages
  printf '[setup] installing transformers %s, the newest\n' "$newest" >&2
  report=$(PYTHONPATH=build/transformers-5 python_pip install --dry-run --report - "transformers==$newest")
  list=$(names_and_versions <<<"$report")
  mapfile -t packages < <(grep . <<<"$list")
  python_pip install --no-compile --no-deps --target "$1" "transformers==$newest" "${packages[@]}" >&2
}

# torch's Python module is linked with CUDA's libraries, of which nothing is called without a GPU.
# Instead of 5 GB of packages: libraries of these names, with every symbol that would be missing.
make_absent_cuda() {
  local out=$1 torch=build/python/lib/python3.11/site-packages/torch/lib name
  local present=("$torch"/*.so* build/python/lib/python3.11/site-packages/nvidia/*/lib/*.so*
    /lib/x86_64-linux-gnu/lib{c,m,stdc++,gcc_s}.so.6 /lib/x86_64-linux-gnu/libgcc_s.so.1
    /lib/x86_64-linux-gnu/ld-linux-x86-64.so.2)
  local users=("$torch"/lib{torch_cuda,torch_cuda_linalg,torch_python,torch_nvshmem,c10_cuda}.so)
  {
    echo .data
    comm -23 <(nm -D --undefined-only "${users[@]}" 2>/dev/null | awk 'NF == 2 {print $2}' | sed 's/@.*//' | sort -u) \
      <(nm -D --defined-only "${present[@]}" 2>/dev/null | awk 'NF >= 3 {print $3}' | sed 's/@.*//' | sort -u) |
      grep -E '^(cu|nv)' | awk '{print ".globl " $1 "\n" $1 ":"}'
    printf '.skip 4096\n.section .note.GNU-stack,"",@progbits\n'
  } >"$out/symbols.s"
  g++ -shared -o "$out/libabsent.so" -Wl,-soname,libabsent.so "$out/symbols.s"
  for name in $(readelf -d "${users[@]}" | sed -n 's/.*NEEDED.*\[\(lib\(cu\|nv\).*\)\]/\1/p' | sort -u); do
    compgen -G "build/python/lib/python3.11/site-packages/nvidia/*/lib/$name" >/dev/null && continue
    g++ -shared -x c++ /dev/null -o "$out/$name" "-Wl,-soname,$name" -Wl,--no-as-needed -L"$out" -labsent
  done
}

# Where libtorch's folder, the compiler of the libraries, or a list of packages changes, so does the folder.
python_key=$(basename "$(readlink -f build/python)")
for line in 4 5.0 5; do
  provide "transformers-$line" "$(cat "launch/requirements-transformers-$line.txt" launch/setup_transformers.sh | sha256sum | cut -c1-16)" install_transformers
done
provide absent-cuda "$(echo "$python_key" | cat - launch/setup_transformers.sh | sha256sum | cut -c1-16)" make_absent_cuda

if [ "${1:-}" = newest ]; then
  if ! report=$(python_pip install --dry-run --ignore-installed --no-deps --report - transformers); then
    printf 'setup_transformers: pip cannot say which transformers is the newest (its message stands above)\n' >&2
    exit 1
  fi
  newest=$(names_and_versions <<<"$report" | sed 's/.*==//')
  provide transformers-newest "$newest-$(cat launch/requirements-transformers-5.txt launch/setup_transformers.sh | sha256sum | cut -c1-16)" install_newest
  echo "$newest"
fi
