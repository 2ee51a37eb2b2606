#!/bin/bash
# run.sh TEST.py: runs a test of a real client on a private simulated machine, in the environment that
# requirements.txt describes. Exit 77 (skipped) where PyPI cannot be reached.
set -u
here=$(cd "$(dirname "$0")" && pwd)
build=${DIVVY_BUILD_DIR:-$here/../../build}
venv=$build/clients-venv
want=$(sha256sum "$here/requirements.txt")
if [ "$(cat "$venv/.made-of" 2>/dev/null)" != "$want" ]; then
  rm -rf "$venv"
  if ! python3 -m venv "$venv" >"$build/clients-venv.log" 2>&1 ||
     ! "$venv/bin/pip" install -q --disable-pip-version-check --timeout 15 --retries 1 \
         -r "$here/requirements.txt" >>"$build/clients-venv.log" 2>&1; then
    echo "skipped: the clients of $here/requirements.txt are not to be had: see $build/clients-venv.log"
    rm -rf "$venv"
    exit 77
  fi
  echo "$want" > "$venv/.made-of"
fi
unset DIVVY_SIM_DIR
export DIVVY_SIM=${DIVVY_SIM:-h100x2}
export LD_LIBRARY_PATH=$build/lib/sim
# Python has no sanitizer's run time, the simulator's libraries of such a build need it first. What
# Python itself leaves allocated at its end is not ours.
if [ -n "${DIVVY_SANITIZER_RUNTIME:-}" ]; then
  export LD_PRELOAD=$DIVVY_SANITIZER_RUNTIME ASAN_OPTIONS=${ASAN_OPTIONS:-}:detect_leaks=0
fi
exec "$venv/bin/python" "$1"
