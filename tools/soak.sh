#!/bin/bash
# Runs a model for a long time in a memory control group and says whether it stayed inside and stayed right: OOM kills,
# peak of memory, and whether every answer has the tokens of a run without a limit. For a third of the time, in the
# middle, the limit is a smaller one, in which the model must still fit when it is opened. Needs root and either version
# of control groups; jq.
#   tools/soak.sh MODEL [--minutes 20] [--limit 6G] [--smaller 3G] [--tokens 400] [--prompt-bytes 3000]
#                       [--reference FILE] [--program build/release/bin/moraine]
# --reference: the ids of the run without a limit; made (which takes the whole model into RAM) if it does not exist.
# Ends with 0 if all was well, else 1.
set -u
cd "$(dirname "$0")/.."

fail() { echo "soak: $*" >&2; exit 2; }
[ $# -ge 1 ] || fail "name a model"
model=$1; shift
minutes=20 limit=6G smaller=3G tokens=400 prompt_bytes=3000 reference= program=build/release/bin/moraine
while [ $# -gt 0 ]; do
  [ $# -ge 2 ] || fail "$1 needs a value"
  case $1 in
    --minutes) minutes=$2 ;; --limit) limit=$2 ;; --smaller) smaller=$2 ;; --tokens) tokens=$2 ;;
    --prompt-bytes) prompt_bytes=$2 ;; --reference) reference=$2 ;; --program) program=$2 ;;
    *) fail "unknown option $1" ;;
  esac
  shift 2
done
limit_bytes=$(numfmt --from=iec "$limit") || fail "bad --limit"
smaller_bytes=$(numfmt --from=iec "$smaller") || fail "bad --smaller"

work=$(mktemp -d)
if [ -e /sys/fs/cgroup/cgroup.controllers ]; then
  group=/sys/fs/cgroup/moraine_soak_$$ hard=memory.max soft=memory.high usage=memory.current
  no_soft=max kills=memory.events
else
  group=/sys/fs/cgroup/memory/moraine_soak_$$ hard=memory.limit_in_bytes soft=memory.soft_limit_in_bytes
  usage=memory.usage_in_bytes no_soft=-1 kills=memory.oom_control
fi
mkdir "$group" || fail "could not make a control group"
touch "$work/answers"
runner=
finish() {
  [ -n "$runner" ] && xargs -r kill < "$group/cgroup.procs" 2> /dev/null && wait "$runner" 2> /dev/null
  rmdir "$group" 2> /dev/null
  rm -rf "$work"
}
trap finish EXIT

cat README.md docs/*.md | head -c "$prompt_bytes" > "$work/prompt"
answer() { "$program" generate "$model" --file "$work/prompt" --raw --temp 0 --max-tokens "$tokens" --json; }
reference=${reference:-$work/reference}
if [ ! -s "$reference" ]; then
  answer 2> "$work/log" | jq -c .ids > "$reference"
  [ -s "$reference" ] || { tail -3 "$work/log"; fail "the run without a limit failed"; }
fi

echo "$limit_bytes" > "$group/$hard" || fail "could not set the limit"
end=$(($(date +%s) + minutes * 60))
(
  echo $BASHPID > "$group/cgroup.procs"
  while [ "$(date +%s)" -lt $end ]; do
    if answer 2> "$work/log" | jq -c .ids > "$work/ids" && cmp -s "$work/ids" "$reference"; then
      echo right >> "$work/answers"
    else
      echo wrong >> "$work/answers"
      tail -2 "$work/log" >> "$work/answers"
      sleep 5  # what fails at once must not fill the disk
    fi
  done
) &
runner=$!

# The soft limit tells the program to shrink; the hard one follows when it has. Both return together.
begin=$(date +%s) state=whole peak=0 peak_smaller=0 shrunk_s=
while kill -0 "$runner" 2> /dev/null; do
  now=$(date +%s)
  used=$(cat "$group/$usage")
  [ "$used" -gt "$peak" ] && peak=$used
  elapsed=$((now - begin)) third=$((minutes * 20))
  case $state in
    whole) [ $elapsed -ge $third ] && echo "$smaller_bytes" > "$group/$soft" && state=shrinking ;;
    shrinking)
      if [ "$used" -le "$smaller_bytes" ] && echo "$smaller_bytes" 2> /dev/null > "$group/$hard"; then
        state=smaller shrunk_s=$((elapsed - third))
      fi ;;
    smaller)
      [ "$used" -gt "$peak_smaller" ] && peak_smaller=$used
      if [ $elapsed -ge $((2 * third)) ]; then
        echo "$limit_bytes" > "$group/$hard"
        echo $no_soft > "$group/$soft"
        state=again
      fi ;;
  esac
  sleep 0.5
done
wait "$runner"
runner=

killed=$(awk '$1 == "oom_kill" { print $2 }' "$group/$kills")
right=$(grep -c '^right' "$work/answers") wrong=$(grep -c '^wrong' "$work/answers")
gb() { awk -v b="$1" 'BEGIN { printf "%.2f GB", b / 1e9 }'; }
echo "soak: $minutes minutes, limit $limit, then $smaller, then $limit; $right answers of $tokens tokens right, $wrong wrong"
echo "soak: OOM kills $killed; peak $(gb "$peak"); under the smaller limit ${shrunk_s:-never} s after it was asked for, peak there $(gb "$peak_smaller")"
[ "$wrong" -eq 0 ] || grep -v '^right' "$work/answers"
[ "$killed" = 0 ] && [ "$wrong" -eq 0 ] && [ "$right" -gt 0 ] && [ -n "$shrunk_s" ]
