# shellcheck shell=bash
# Shared by quickstart.sh, test.sh and setup/onednn.sh: source it under `set -euo pipefail`.
# All progress goes to stderr; stdout belongs to whoever sources this.

MORAINE_ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd -P)
MORAINE_LOGS=${MORAINE_LOGS:-$MORAINE_ROOT/build/logs}
step_pid=''

say() { printf '%s\n' "$*" >&2; }

die() {
  printf 'error: %s\n' "$*" >&2
  exit 1
}

# clock SECONDS: 75 -> 1:15
clock() { printf '%d:%02d' $(($1 / 60)) $(($1 % 60)); }

# Ctrl-C and TERM reach what runs in the background too; bash alone would leave it behind. `timeout` passes TERM on to
# everything it started.
stop_step() {
  [ -z "$step_pid" ] || kill -TERM "$step_pid" 2>/dev/null || true
  say ''
  say 'stopped; run the same command again to go on from here.'
  exit "$1"
}
trap 'stop_step 130' INT
trap 'stop_step 143' TERM

# The last thing a log says, without colours: ninja's [N/M], apt's or ctest's line.
last_line() { tail -c 2000 "$1" 2>/dev/null | tr '\r' '\n' | sed 's/\x1b\[[0-9;]*[A-Za-z]//g' | awk 'NF {l = $0} END {print l}'; }

# One line that is rewritten on a terminal; elsewhere (CI) a line every ten seconds.
show_progress() { # LABEL SECONDS LOG
  local text columns
  text="$1  $(clock "$2")  $(last_line "$3")"
  if [ -t 2 ]; then
    columns=$(stty size <&2 2>/dev/null | cut -d' ' -f2) || true
    ((${columns:-0} > 1)) || columns=80
    printf '\r\033[K%.*s' $((columns - 1)) "$text" >&2
  elif (($2 == 2 || $2 % 10 == 0)); then
    printf '%.160s\n' "$text" >&2
  fi
}

show_failure() { # LABEL STATUS LOG
  local reason="exit status $2"
  [ "$2" -ne 124 ] && [ "$2" -ne 137 ] || reason='it took too long and was stopped'
  say "$1: FAILED ($reason). The end of its log:"
  tail -n 40 "$3" | sed 's/^/  | /' >&2
  say "The whole log: $3"
}

# watch_step LABEL LIMIT_SECONDS LOG COMMAND...: runs it into LOG under a time limit, with a moving line of progress.
# Returns the command's status.
watch_step() {
  local label=$1 limit=$2 log=$3 started=$SECONDS elapsed=0 status=0
  shift 3
  mkdir -p "$(dirname "$log")"
  : >"$log"
  timeout --kill-after=20 "$limit" "$@" >"$log" 2>&1 </dev/null &
  step_pid=$!
  while sleep 0.1 && kill -0 "$step_pid" 2>/dev/null; do
    if ((SECONDS - started > elapsed)); then
      elapsed=$((SECONDS - started))
      show_progress "$label" "$elapsed" "$log"
    fi
  done
  wait "$step_pid" || status=$?
  step_pid=''
  [ ! -t 2 ] || printf '\r\033[K' >&2
  elapsed=$((SECONDS - started))
  ((status != 0 || elapsed < 2)) || say "$label: done in $(clock "$elapsed")"
  return "$status"
}

# The same, and on failure the end of the log is shown.
run_step() {
  local status=0
  watch_step "$@" || status=$?
  [ "$status" -eq 0 ] || show_failure "$1" "$status" "$3"
  return "$status"
}

# How many compilers fit: one per core and per 1.5 GB of free memory.
compile_jobs() {
  local cores free_mb fit
  cores=$(nproc)
  free_mb=$(awk '/^MemAvailable/ {print int($2 / 1024)}' /proc/meminfo 2>/dev/null || true)
  fit=$((${free_mb:-4096} / 1500))
  ((fit >= 1)) || fit=1
  echo $((fit < cores ? fit : cores))
}

# configure_preset PRESET: configures build/PRESET unless it already is, with the oneDNN that setup/onednn.sh finds.
configure_preset() {
  local preset=$1 folder=$MORAINE_ROOT/build/$1 dnnl_folder='' home='' prefix fresh=()
  if [ -f "$folder/CMakeCache.txt" ]; then
    dnnl_folder=$(sed -n 's/^dnnl_DIR:[A-Z]*=//p' "$folder/CMakeCache.txt")
    home=$(sed -n 's/^CMAKE_HOME_DIRECTORY:[A-Z]*=//p' "$folder/CMakeCache.txt")
    [ "$home" = "$MORAINE_ROOT" ] || fresh=(--fresh)
    if [ ${#fresh[@]} -eq 0 ] && [ -f "$folder/build.ninja" ] && [ -d "$dnnl_folder" ]; then return 0; fi
  fi
  prefix=$("$MORAINE_ROOT/tools/setup/onednn.sh") || return 1
  run_step "Configuring $preset" 600 "$MORAINE_LOGS/configure-$preset.log" \
    cmake -S "$MORAINE_ROOT" --preset "$preset" "${fresh[@]}" -U dnnl_DIR "-Ddnnl_ROOT=$prefix"
}

# build_preset PRESET TARGET...: builds it (nothing to do is a matter of a second).
build_preset() {
  local preset=$1
  shift
  configure_preset "$preset" || return 1
  run_step "Building $preset" 3600 "$MORAINE_LOGS/build-$preset.log" \
    cmake --build "$MORAINE_ROOT/build/$preset" --parallel "$(compile_jobs)" --target "$@"
}
