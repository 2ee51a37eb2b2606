#!/usr/bin/env bash
# The main job in twenty seconds: two unmodified CUDA programs share one GPU, each held to its own
# memory; a third that does not fit is refused. On the GPU that is there, else on a simulated one.
set -u
exec 2>&1  # errors where they belong in the story
cd "$(dirname "$0")/.."
divvy=build/bin/divvy
running=()
own_dir=''
finish() {
  [ ${#running[@]} -eq 0 ] || kill "${running[@]}" 2>/dev/null
  wait
  [ -n "$own_dir" ] || return
  $divvy daemon stop --all >/dev/null 2>&1
  rm -rf "$own_dir"
}
trap finish EXIT

# On a real GPU with the daemon that may serve it already; a simulated one is the demo's own.
if $divvy devices -o json 2>/dev/null | grep -q '"machine": "real"'; then
  on=() run_on=(--gpu 0)
  echo "This machine has a GPU; the demo uses it:"
else
  on=(--sim h100) run_on=(--sim h100)
  own_dir=$(mktemp -d /tmp/divvy-demo-XXXXXX)
  export DIVVY_RUNTIME_DIR=$own_dir
  echo "No GPU here, so this runs on a SIMULATED H100 (same commands, same daemon, same library):"
fi
bold='' plain=''
if [ -t 1 ]; then bold=$'\033[1m' plain=$'\033[0m'; fi
show() { printf '\n%s$ %s%s\n' "$bold" "${*//build\/bin\//}" "$plain"; }
failures=0
expect() {  # expect WHAT WANTED GOT
  if [ "$2" = "$3" ]; then echo "  -> $1"; else
    echo "  -> NOT AS IT SHOULD BE: $1 (status $3, wanted $2)"
    failures=$((failures + 1))
  fi
}
# Waits until tenant $1 holds what it asked for, as `divvy ps` shows it.
await() {
  for _ in $(seq 100); do
    $divvy ps -o json 2>/dev/null | python3 -c '
import json, sys
tenants = {t["name"]: t for t in json.load(sys.stdin)["tenants"]}
share = tenants.get(sys.argv[1], {}).get("shares", [{}])[0]
sys.exit(share.get("kinds", {}).get("linear", 0) == 0)' "$1" && return
    sleep 0.1
  done
  echo "  -> $1 did not start"
  failures=$((failures + 1))
}

show "$divvy devices ${on[*]}"
$divvy devices "${on[@]}"

show "$divvy run ${run_on[*]} --mem 4GiB --name train -- divvy load --alloc 3GiB --hold 60s &"
$divvy run "${run_on[@]}" --mem 4GiB --name train -- $divvy load --alloc 3GiB --hold 60s &
running+=($!)
await train
show "$divvy run ${run_on[*]} --mem 2GiB --name infer -- divvy load --alloc 1GiB --hold 60s &"
$divvy run "${run_on[@]}" --mem 2GiB --name infer -- $divvy load --alloc 1GiB --hold 60s &
running+=($!)
await infer

show "$divvy ps"
$divvy ps
echo "  -> two programs that know nothing of Divvy, on one GPU, each with its own memory"

show "$divvy run ${run_on[*]} --mem 2GiB -- divvy load --alloc 3GiB"
$divvy run "${run_on[@]}" --mem 2GiB -- $divvy load --alloc 3GiB
expect "a program that wants more than its share gets the driver's own error" 3 $?

show "$divvy run ${run_on[*]} --mem 1TiB -- divvy load --alloc 1GiB"
$divvy run "${run_on[@]}" --mem 1TiB -- $divvy load --alloc 1GiB
expect "a share that does not fit beside the others is not promised at all" 125 $?

show "$divvy set infer --mem 3GiB"
$divvy set infer --mem 3GiB
expect "a share changes while its program runs" 0 $?

echo
if [ $failures -ne 0 ]; then
  echo "$failures of the steps above did not do what they should"
  exit 1
fi
if [ ${#on[@]} -gt 0 ]; then echo "All of it as it should be, on a simulated GPU."; else
  echo "All of it as it should be, on this machine's GPU."
fi
