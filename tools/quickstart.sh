#!/usr/bin/env bash
# From a fresh clone to an answer: see --help.
set -euo pipefail

# shellcheck source=tools/setup/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/setup/common.sh"
# shellcheck source=tools/setup/packages.sh
. "$MORAINE_ROOT/tools/setup/packages.sh"

usage() {
  cat <<'TEXT'
usage: tools/quickstart.sh [PROMPT]

Installs what is missing, builds Moraine and answers PROMPT (default: "What is a mixture of experts?") with the
embedded model, thinking first. Made for Debian 12, as root or with sudo; works from any folder.

The first run takes some minutes, most of them to build the oneDNN library once into ~/.cache/moraine; later runs skip
what is done. To use a oneDNN of your own (3.7 or newer, TBB runtime), set dnnl_DIR or CMAKE_PREFIX_PATH.
The logs of all steps are in build/logs/.
TEXT
}

main() {
  local prompt='What is a mixture of experts?' program=$MORAINE_ROOT/build/release/bin/moraine shown
  case ${1-} in
    -h | --help) usage && exit 0 ;;
    --) shift ;;
    -*) usage >&2 && exit 2 ;;
  esac
  [ $# -le 1 ] || { say 'error: more than one prompt; put it in quotes.' && exit 2; }
  [ -z "${1-}" ] || prompt=$1

  ensure_packages "${BUILD_PACKAGES[@]}"
  build_preset release moraine

  shown=$program
  [ "$PWD" != "$MORAINE_ROOT" ] || shown=build/release/bin/moraine
  say ''
  say "> $prompt"
  "$program" run -p "$prompt"
  say ''
  say "Chat with it:  $shown run"
}

main "$@"
