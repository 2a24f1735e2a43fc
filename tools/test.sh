#!/usr/bin/env bash
# Every test of the repository: see --help.
set -euo pipefail

# shellcheck source=tools/setup/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/setup/common.sh"
# shellcheck source=tools/setup/packages.sh
. "$MORAINE_ROOT/tools/setup/packages.sh"

FUZZ_SECONDS=${MORAINE_FUZZ_SECONDS:-10}
FUZZ_RUNS=${MORAINE_FUZZ_RUNS:-}
passed=0
failed=0
phase_times=()

usage() {
  cat <<'TEXT'
usage: tools/test.sh [format|release|asan|tsan|fuzz|lint]...

Installs what is missing, builds and tests. Without arguments: format release asan fuzz.
  format   every source is formatted as .clang-format says
  release  the whole suite in the release build
  asan     the suite with AddressSanitizer and UndefinedBehaviorSanitizer, without the tests labelled `slow`
  tsan     the same with ThreadSanitizer
  fuzz     every libFuzzer target, 10 s each, from its seed corpus; MORAINE_FUZZ_SECONDS changes that, MORAINE_FUZZ_RUNS
           gives a number of inputs for each instead (nightly: MORAINE_FUZZ_RUNS=10000000, some hours)
  lint     clang-tidy and shellcheck
The last line is "N passed, N failed" (skipped tests are neither); the exit status is 0 only if nothing failed. Logs are in build/logs/.
TEXT
}

# source_files PATTERN...: the repository's own files that match, without what git ignores.
source_files() {
  local pattern
  if git -C "$MORAINE_ROOT" rev-parse --is-inside-work-tree >/dev/null 2>&1; then
    git -C "$MORAINE_ROOT" ls-files --cached --others --exclude-standard -- "$@" | sort -u
  else
    for pattern in "$@"; do
      (cd "$MORAINE_ROOT" && find . -path ./build -prune -o -type f -name "$pattern" -print)
    done
  fi
}

# verdict STATUS NAME: counts one check and says how it went.
verdict() {
  if [ "$1" -eq 0 ]; then
    passed=$((passed + 1))
    say "$2: passed"
  else
    failed=$((failed + 1))
    say "$2: FAILED"
  fi
}

# The output of the first failed tests in a ctest log.
show_failed_tests() {
  awk '/^ *[0-9]+\/[0-9]+ Test +#/ {inside = /\*\*\*/ && !/\*\*\*Skipped/ && ++shown <= 5; lines = 0}
       inside && ++lines <= 40 {print "  | " $0}' "$1" >&2
}

# ctest's verdicts into the counts, its own summary onto the screen.
count_ctest() { # LOG
  local summary skipped
  summary=$(sed -n 's/^[0-9]*% tests passed, \([0-9]*\) tests failed out of \([0-9]*\)$/\1 \2/p' "$1")
  if [ -z "$summary" ]; then
    failed=$((failed + 1))
    tail -n 20 "$1" >&2
    return
  fi
  sed -n '/^[0-9]*% tests passed/,$p' "$1" >&2
  skipped=$(grep -c '^[[:space:]]*[0-9]* - .* (Skipped)$' "$1" || true)
  failed=$((failed + ${summary% *}))
  passed=$((passed + ${summary#* } - ${summary% *} - skipped))
}

suite() { # PRESET
  local preset=$1 log=$MORAINE_LOGS/ctest-$1.log status=0
  build_preset "$preset" all || { verdict 1 "Building $preset" && return; }
  cd "$MORAINE_ROOT"
  # A second try for the tests that drive a pseudo-terminal: on a machine at several times its load one of them once ran
  # into its time limit. What is broken fails twice.
  watch_step "Testing $preset" 2400 "$log" \
    ctest --preset "$preset" --parallel "$(nproc)" --no-tests=error --repeat until-pass:2 || status=$?
  [ "$status" -eq 0 ] || show_failed_tests "$log"
  count_ctest "$log"
  [ "$status" -eq 0 ] || say "The whole log: $log"
}

phase_format() {
  local files status=0
  mapfile -t files < <(source_files '*.h' '*.cpp' '*.cu' '*.cuh')
  cd "$MORAINE_ROOT"
  run_step 'Checking the format' 300 "$MORAINE_LOGS/format.log" clang-format --dry-run -Werror "${files[@]}" || status=$?
  [ "$status" -eq 0 ] || say 'Mend it with: clang-format -i FILE'
  verdict "$status" "format of ${#files[@]} files"
}

phase_release() { suite release; }
phase_asan() { suite asan; }
phase_tsan() { suite tsan; }

fuzz_one() { # NAME
  local name=$1 seeds=$MORAINE_ROOT/tests/fuzz/corpus/$1 work=$MORAINE_ROOT/build/fuzz status=0
  local length=-max_total_time=$FUZZ_SECONDS limit=$((FUZZ_SECONDS + 120)) options=()
  local dictionary=$MORAINE_ROOT/tests/fuzz/$1.dict
  if [ -z "$(ls -A "$seeds" 2>/dev/null)" ]; then
    say "no seeds in $seeds"
    verdict 1 "fuzz $name"
    return
  fi
  mkdir -p "$work/corpus/$name" "$work/findings"
  cp -f "$seeds"/* "$work/corpus/$name/"
  [ -z "$FUZZ_RUNS" ] || { length=-runs=$FUZZ_RUNS && limit=86400; }
  [ ! -f "$dictionary" ] || options+=("-dict=$dictionary")
  # Without entropic scheduling and with short stack traces of allocations it runs 2 to 4 times as many inputs per second.
  # No reader takes 128 MB at once for an input of some kilobytes.
  run_step "Fuzzing $name" "$limit" "$MORAINE_LOGS/fuzz-$name.log" \
    env ASAN_OPTIONS=malloc_context_size=2 "$work/bin/fuzz_$name" "$length" -entropic=0 -rss_limit_mb=2048 \
    -malloc_limit_mb=128 -timeout=10 -print_final_stats=1 "-artifact_prefix=$work/findings/$name-" "${options[@]}" \
    "$work/corpus/$name" || status=$?
  verdict "$status" "fuzz $name ($(sed -n 's/^stat::number_of_executed_units: *//p' "$MORAINE_LOGS/fuzz-$name.log") inputs)"
}

phase_fuzz() {
  local source found=0
  build_preset fuzz fuzzers || { verdict 1 'Building fuzz' && return; }
  for source in "$MORAINE_ROOT"/tests/fuzz/*_fuzz.cpp; do
    [ -f "$source" ] || continue
    found=1
    fuzz_one "$(basename "$source" _fuzz.cpp)"
  done
  [ "$found" -eq 1 ] || verdict 1 'fuzz (no target in tests/fuzz)'
}

phase_lint() {
  local sources scripts status=0
  cd "$MORAINE_ROOT"
  mapfile -t scripts < <(source_files '*.sh' '.ci/run')
  run_step 'Checking the scripts' 300 "$MORAINE_LOGS/shellcheck.log" shellcheck -x "${scripts[@]}" || status=$?
  verdict "$status" "shellcheck of ${#scripts[@]} scripts"
  status=0
  mapfile -t sources < <(source_files 'quant/*.cpp' 'offload/*.cpp' 'runtime/*.cpp' 'cpu/*.cpp' 'tools/*.cpp')
  configure_preset release || { verdict 1 'Configuring release' && return; }
  printf '%s\n' "${sources[@]}" >"$MORAINE_LOGS/clang-tidy.files"
  run_step 'Reading with clang-tidy' 3000 "$MORAINE_LOGS/clang-tidy.log" \
    xargs -a "$MORAINE_LOGS/clang-tidy.files" -P "$(nproc)" -n 1 clang-tidy -p build/release --quiet || status=$?
  verdict "$status" "clang-tidy of ${#sources[@]} sources"
}

packages_for() { # PHASE...
  printf '%s\n' "${BUILD_PACKAGES[@]}"
  case " $* " in *' format '*) printf '%s\n' "${FORMAT_PACKAGES[@]}" ;; esac
  case " $* " in *' fuzz '*) printf '%s\n' "${FUZZ_PACKAGES[@]}" ;; esac
  case " $* " in *' lint '*) printf '%s\n' "${LINT_PACKAGES[@]}" ;; esac
}

main() {
  local phase packages started before phases=("$@")
  exec 2>&1  # the report is the output
  for phase in "$@"; do
    case $phase in
      -h | --help) usage && exit 0 ;;
      format | release | asan | tsan | fuzz | lint) ;;
      *) usage >&2 && exit 2 ;;
    esac
  done
  [ $# -gt 0 ] || phases=(format release asan fuzz)

  mapfile -t packages < <(packages_for "${phases[@]}")
  started=$SECONDS
  ensure_packages "${packages[@]}"
  phase_times+=("$(printf '%-8s %6s' packages "$(clock $((SECONDS - started)))")")
  for phase in "${phases[@]}"; do
    say ''
    say "== $phase"
    started=$SECONDS
    before=$failed
    "phase_$phase"
    phase_times+=("$(printf '%-8s %6s  %s' "$phase" "$(clock $((SECONDS - started)))" \
      "$([ "$failed" -eq "$before" ] && echo passed || echo FAILED)")")
  done

  say ''
  printf '%s\n' "${phase_times[@]}"
  echo "$passed passed, $failed failed"
  [ "$failed" -eq 0 ]
}

main "$@"
