#!/usr/bin/env bash
# sanitizer_tests.sh asan|tsan [CTEST ARGUMENTS…]: runs the tests of a sanitizer build and fails also
# on what a process reported that no test looks at (the broker, a daemon in the background).
# Reports go to build-PRESET/reports, one file per process; they are printed at the end.
set -u
cd "$(dirname "$0")/.."
preset=$1
shift
reports=$PWD/build-$preset/reports
rm -rf "$reports"
mkdir -p "$reports"
chmod 1777 "$reports"  # some tests run programs as another user
export ASAN_OPTIONS=log_path=$reports/asan:detect_stack_use_after_return=1
export LSAN_OPTIONS=suppressions=$PWD/tools/lsan.supp:print_suppressions=0
export UBSAN_OPTIONS=log_path=$reports/ubsan:print_stacktrace=1
export TSAN_OPTIONS=log_path=$reports/tsan:suppressions=$PWD/tools/tsan.supp:second_deadlock_stack=1
# Without address randomisation: the thread sanitizer of Debian 12's compiler does not know where
# newer kernels put things.
setarch -R ctest --output-on-failure --test-dir "build-$preset" "$@"
status=$?
for report in "$reports"/*; do
  [ -s "$report" ] || continue
  echo "=== $report"
  head -60 "$report"
  status=1
done
exit $status
