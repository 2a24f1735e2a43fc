# shellcheck shell=bash
# The Debian packages, and installing those that are missing. Source it after common.sh.

# shellcheck disable=SC2034  # used by the scripts that source this
BUILD_PACKAGES=(g++ cmake ninja-build pkgconf python3 xz-utils
  libhwloc-dev liburing-dev libtbb-dev libcli11-dev nlohmann-json3-dev libfmt-dev
  libpcre2-dev libutf8proc-dev libxxhash-dev libssl-dev libedit-dev libgtest-dev libgmock-dev)

# The compiler's run-time library is named after its version: 14 in Debian 12, 19 in Debian 13.
clang_version() { (. /etc/os-release 2>/dev/null && [ "${VERSION_ID:-12}" = 13 ] && echo 19) || echo 14; }
# shellcheck disable=SC2034
FUZZ_PACKAGES=(clang "libclang-rt-$(clang_version)-dev")
# shellcheck disable=SC2034
FORMAT_PACKAGES=(clang-format)
# shellcheck disable=SC2034
LINT_PACKAGES=(clang-tidy shellcheck)

# missing_packages PACKAGE...: prints those that are not installed.
missing_packages() {
  local package
  for package in "$@"; do
    [ "$(dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null || true)" = installed ] || echo "$package"
  done
}

# Sets what stands before a command that needs root: nothing as root, else sudo. A password is asked for here, in the
# foreground, because the steps themselves run in the background.
become_root=()
prepare_root() { # PACKAGES, for the message
  [ "$(id -u)" -ne 0 ] || return 0
  command -v sudo >/dev/null ||
    die "installing the missing packages needs root, and there is no sudo here. As root: apt-get install $*"
  sudo -n true 2>/dev/null || say 'Installing packages needs your password:'
  sudo -v || die "sudo did not let this account install packages. As root: apt-get install $*"
  # A second time limit: a plain user's cannot stop what root runs.
  become_root=(sudo -n timeout 1800)
}

apt_step() { # LABEL LIMIT_SECONDS LOG APT_GET_ARGUMENT...
  local label=$1 limit=$2 log=$3
  shift 3
  run_step "$label" "$limit" "$log" "${become_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get \
    -o Acquire::Retries=3 -o Acquire::http::Timeout=30 -o Acquire::https::Timeout=30 -o DPkg::Lock::Timeout=120 "$@"
}

# ensure_packages PACKAGE...: installs the missing ones; asks and touches nothing when none is.
ensure_packages() {
  local missing
  if ! command -v apt-get >/dev/null || ! command -v dpkg-query >/dev/null; then
    say "This is no Debian, so nothing is installed; needed is what Debian calls: $*"
    return 0
  fi
  mapfile -t missing < <(missing_packages "$@")
  [ ${#missing[@]} -gt 0 ] || return 0
  say "Installing: ${missing[*]}"
  prepare_root "${missing[*]}"
  # A foreign package source that fails must not stop us: whether the packages can be had, the next step tells.
  apt_step 'Reading package lists' 600 "$MORAINE_LOGS/apt-update.log" update || say 'Trying to install all the same.'
  apt_step 'Installing packages' 1800 "$MORAINE_LOGS/apt-install.log" install -y --no-install-recommends "${missing[@]}"
}
