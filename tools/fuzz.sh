#!/usr/bin/env bash
# Runs every fuzzer of build-fuzz for FUZZ_SECONDS (30) from its committed corpus. What they learn
# stays in build-fuzz/learned; what makes one fail in build-fuzz/found, named at the end.
set -u
cd "$(dirname "$0")/.."
mkdir -p build-fuzz/found
status=0
for fuzzer in build-fuzz/fuzz/*; do
  [ -f "$fuzzer" ] && [ -x "$fuzzer" ] || continue
  name=$(basename "$fuzzer")
  mkdir -p "build-fuzz/learned/$name"
  corpus=$(cat "build-fuzz/fuzz/$name.corpus")
  echo "== $name"
  "$fuzzer" -max_total_time="${FUZZ_SECONDS:-30}" -timeout=10 -rss_limit_mb=4096 -print_final_stats=1 \
    -artifact_prefix="build-fuzz/found/$name-" "build-fuzz/learned/$name" "$corpus" \
    >"build-fuzz/$name.log" 2>&1 || { status=1; tail -60 "build-fuzz/$name.log"; }
  sed -n 's/^stat::\(number_of_executed_units\|new_units_added\|peak_rss_mb\): */  \1 /p' \
    "build-fuzz/$name.log"
done
ls build-fuzz/found
exit $status
