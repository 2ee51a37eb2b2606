#!/usr/bin/env bash
# Installs what building and testing Divvy needs from Debian 12's own packages. Does nothing when
# all of it is there; without root it prints the command to run instead.
#   setup.sh          for demo, test, bench, asan, tsan
#   setup.sh clang    also the second compiler: clang, fuzz, tidy
#   setup.sh package      also what reads packages, manual pages and completions, for test-package
#   setup.sh prometheus   also Prometheus, for test-prometheus; its service is not started
set -eu

packages=(
  build-essential cmake ninja-build ccache clang-format python3 python3-venv
  libcli11-dev nlohmann-json3-dev libcpp-httplib-dev libspdlog-dev libfmt-dev
  libgtest-dev libgmock-dev libbenchmark-dev libncurses-dev
  strace valgrind util-linux
)

[ "${1-}" != clang ] || packages+=(clang clang-tidy libclang-rt-14-dev)

[ "${1-}" != prometheus ] || packages+=(prometheus)

[ "${1-}" != package ] || packages+=(lintian mandoc man-db groff zsh fish debootstrap buildah)

missing=()
for p in "${packages[@]}"; do
  dpkg-query -W -f='${db:Status-Status}\n' "$p" 2>/dev/null | grep -qx installed || missing+=("$p")
done
[ ${#missing[@]} -gt 0 ] || exit 0

if ! command -v apt-get >/dev/null; then
  echo "setup: not a Debian system; install the equivalents of: ${missing[*]}" >&2
  exit 1
fi
if [ "$(id -u)" -ne 0 ]; then
  echo "setup: ${#missing[@]} packages are missing; run: sudo apt-get install -y ${missing[*]}" >&2
  exit 1
fi
echo "setup: installing ${missing[*]}"
# No package's service is to begin here; what the machine says of that itself stays as it is.
policy=/usr/sbin/policy-rc.d
if [ ! -e $policy ]; then
  trap 'rm -f $policy' EXIT
  printf '#!/bin/sh\nexit 101\n' >$policy
  chmod 755 $policy
fi
export DEBIAN_FRONTEND=noninteractive
apt-get -qq update
apt-get -qq -o Dpkg::Use-Pty=0 install -y --no-install-recommends "${missing[@]}" >/dev/null
echo "setup: done"
