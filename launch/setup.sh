#!/usr/bin/env bash
# Installs what building and testing need: Debian packages, and Python packages into a private
# folder that all clones of this user share. Does nothing, within a second or two, when all is there.
# Usage: launch/setup.sh          works as root, or as a user who may use sudo
# Example: ./launch/setup.sh && ls build/python/bin
set -euo pipefail
source "$(dirname "$0")/usage.sh"
no_arguments "$@"
cd "$(dirname "$0")/.."

# package=upstream version. A Debian release moves only the part after the dash (security fixes),
# so a wrong upstream version means another release than Debian 12, and we say so.
packages=(
  g++=12.2.0 cmake=3.25.1 ninja-build=1.11.1 ccache=4.8 git=2.39 gzip=1.12
  clang-format=14.0 clang-tidy=14.0 clang=14.0 libclang-rt-14-dev=14.0
  libopenmpi-dev=4.1.4 openmpi-bin=4.1.4
  libabsl-dev=20220623.1 libyaml-cpp-dev=0.7.0 libcli11-dev=2.1.2 nlohmann-json3-dev=3.11.2
  libpcre2-dev=10.42 libssl-dev=3.0. zlib1g-dev=1.2.13 libdnnl2=2.6.3
  libgtest-dev=1.12.1 libgmock-dev=1.12.1
  python3-venv=3.11.2
)
say() { printf '[setup %3ds] %s\n' "$SECONDS" "$*" >&2; }
fail() { printf 'setup: %s\n' "$*" >&2; exit 1; }

as_root() {
  if [ "$(id -u)" = 0 ]; then "$@"
  elif command -v sudo >/dev/null; then sudo "$@"
  else fail "'$*' needs root: run this as root, or install sudo"; fi
}

installed_version() { dpkg-query -W -f '${db:Status-Status} ${Version}' "$1" 2>/dev/null | sed -n 's/^installed \([0-9]*:\)\?//p'; }

install_debian_packages() {
  local missing=() entry
  for entry in "${packages[@]}"; do
    [ -n "$(installed_version "${entry%%=*}")" ] || missing+=("${entry%%=*}")
  done
  if [ ${#missing[@]} -gt 0 ]; then
    say "installing ${#missing[@]} Debian packages: ${missing[*]}"
    as_root env DEBIAN_FRONTEND=noninteractive apt-get update -qq
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
  fi
  for entry in "${packages[@]}"; do
    local name=${entry%%=*} wanted=${entry#*=} found
    found=$(installed_version "$name")
    [[ $found == "$wanted"* ]] || fail "$name is $found, this project is built with $wanted (Debian 12)"
  done
}

install_python_packages() {
  local key folder
  key=$(sha256sum launch/requirements.txt | cut -c1-16)
  folder="${XDG_CACHE_HOME:-${HOME:-/tmp}/.cache}/emo/python-$key"
  mkdir -p build "$(dirname "$folder")"
  if [ ! -e "$folder/complete" ]; then
    say "installing Python packages (torch is 540 MB; a few minutes at most)"
    (
      flock 9   # two clones may set up at once
      [ -e "$folder/complete" ] && exit 0
      rm -rf "$folder"
      /usr/bin/python3 -m venv "$folder"
      "$folder/bin/pip" install --quiet --disable-pip-version-check --no-deps -r launch/requirements.txt
      touch "$folder/complete"
    ) 9>"$folder.lock"
  fi
  ln -sfn "$folder" build/python
}

[ -e /etc/debian_version ] || fail "this script knows Debian 12 only"
install_debian_packages
install_python_packages
say "ready"
