#!/usr/bin/env bash
# clang-tidy (.clang-tidy) over our own sources; any finding fails.
#
#   tools/tidy.sh            what changed since TIDY_BASE (default: the last commit and what is not
#                            committed yet)
#   tools/tidy.sh --all      every source: some ten minutes per core
#   tools/tidy.sh FILE.cc…   these
# Generated files and those of foreign programs (C clients in tests) are left out. Needs clang-tidy
# (apt-get install clang-tidy); without it the exit status is 77.
set -eu
cd "$(dirname "$0")/.."
command -v clang-tidy >/dev/null || { echo "skipped: clang-tidy is not installed"; exit 77; }

case ${1-} in
  --all) files=$(git ls-files 'src/*.cc' 'tests/*.cc') ;;
  "") files=$(git diff --name-only --diff-filter=d "${TIDY_BASE:-HEAD~1}" -- 'src/*.cc' 'tests/*.cc') ;;
  *) files=$* ;;
esac
files=$(printf '%s\n' $files | grep -v /generated/ || true)
[ -n "$files" ] || { echo "tidy: no source has changed"; exit 0; }

mkdir -p build-clang
[ -f build-clang/compile_commands.json ] || cmake --preset clang >build-clang/configure.log 2>&1 ||
  { cat build-clang/configure.log; exit 1; }
# Only what this configuration compiles has flags to be looked at with.
known=$(sed -n 's/^ *"file": "\(.*\)".*/\1/p' build-clang/compile_commands.json)
chosen=()
for f in $files; do
  if grep -qxF "$PWD/$f" <<<"$known"; then chosen+=("$f"); else echo "tidy: $f is not built here"; fi
done
status=0
found=$(mktemp)
printf '%s\n' "${chosen[@]}" | xargs -r -P "${JOBS:-$(nproc)}" -n 1 \
  clang-tidy --quiet -p build-clang --warnings-as-errors='*' >"$found" 2>"$found.err" || status=1
cat "$found"
grep 'error:' "$found.err" || true
rm -f "$found" "$found.err"
[ $status -ne 0 ] || echo "tidy: ${#chosen[@]} files, nothing found"
exit $status
