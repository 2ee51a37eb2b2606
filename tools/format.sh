#!/usr/bin/env bash
# clang-format over every C and C++ file of the project except generated ones.
# --check: change nothing, name the files that differ, status 1 when there are any.
set -eu
cd "$(dirname "$0")/.."

mapfile -t files < <(find src tests bench tools \
  \( -name '*.h' -o -name '*.cc' -o -name '*.c' -o -name '*.inc' \) \
  -not -path '*/generated/*' 2>/dev/null | sort)
if [ "${1:-}" = "--check" ]; then
  clang-format --dry-run -Werror "${files[@]}" && echo "format: ${#files[@]} files, as clang-format has them"
else
  clang-format -i "${files[@]}"
fi
