#!/usr/bin/env bash
# Runs every generator of codegen/. --verify: changes nothing, fails when a committed output differs.
set -eu
cd "$(dirname "$0")/.."
exec python3 codegen/gen.py "$@"
