#!/usr/bin/env bash
# Prints the prefix of a oneDNN that Moraine can use (3.7 or newer, TBB runtime), building one if there is none: see --help.
set -euo pipefail

# shellcheck source=tools/setup/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

VERSION=3.7.2
SOURCE_SUITE=trixie # Debian 13: the release whose source package this is
CACHE=${XDG_CACHE_HOME:-$HOME/.cache}/moraine
PREFIX=$CACHE/onednn-$VERSION
WORK=$CACHE/onednn-$VERSION.build
LOGS=$CACHE/logs

usage() {
  cat <<TEXT
usage: tools/setup/onednn.sh

Prints the prefix of a oneDNN >= 3.7 with the TBB runtime, for cmake --preset release -Ddnnl_ROOT=PREFIX. In this order:
  1. the one CMake finds: the system's, or yours through dnnl_DIR or CMAKE_PREFIX_PATH (dnnl_DIR must fit);
  2. the one an earlier run built: $PREFIX
  3. else Debian 13's source package, fetched through apt from the mirror this machine already uses, and built once
     into that folder. An interrupted build goes on where it stopped.
TEXT
}

# Prints the prefix of the oneDNN that CMake finds, if it is one for us.
found_by_cmake() {
  local folder prefix=''
  folder=$(mktemp -d)
  cat >"$folder/CMakeLists.txt" <<'CMAKE'
cmake_minimum_required(VERSION 3.25)
project(find_onednn LANGUAGES CXX)
find_package(dnnl 3.7 CONFIG QUIET)
if(dnnl_FOUND AND DNNL_CPU_THREADING_RUNTIME STREQUAL "TBB")
  string(REGEX REPLACE "/lib[^/]*(/[^/]+)?/cmake/dnnl/?$" "" prefix "${dnnl_DIR}")
  file(WRITE ${CMAKE_BINARY_DIR}/prefix "${prefix}")
endif()
CMAKE
  if timeout 120 cmake -S "$folder" -B "$folder/build" >"$folder/log" 2>&1 && [ -f "$folder/build/prefix" ]; then
    prefix=$(cat "$folder/build/prefix")
  fi
  rm -rf "$folder"
  [ -n "$prefix" ] && echo "$prefix"
}

is_finished() { [ -f "$(echo "$1"/lib*/cmake/dnnl/dnnl-config.cmake)" ]; }

release_name() { sed -n 's/^VERSION_CODENAME=//p' /etc/os-release; }

# The archive this machine installs Debian from: the one of its own release with a `main`, security left out.
mirror_from_index() {
  local release
  release=$(release_name)
  # shellcheck disable=SC2016  # apt's own placeholders
  apt-get indextargets --format '$(CODENAME) $(COMPONENT) $(REPO_URI)' 'Created-By: Packages' 2>/dev/null |
    awk -v release="$release" '$1 == release && $2 == "main" {print $3; exit}'
}

# The same from the configuration files, for where `apt-get update` never ran: one-line and deb822 style.
mirror_from_files() {
  local release
  release=$(release_name)
  find /etc/apt/sources.list /etc/apt/sources.list.d -name '*.list' -o -name '*.sources' 2>/dev/null | sort | xargs -r cat |
    awk -v release="$release" '
      /^deb[ \t]/ {sub(/\[[^]]*\]/, ""); if ($3 == release && / main/) {print $2; exit}}
      tolower($1) == "uris:" {uri = $2}
      tolower($1) == "suites:" {for (i = 2; i <= NF; ++i) if ($i == release && uri != "") {print uri; exit}}'
}

# apt-get that sees only WORK: neither the package lists nor the sources of the system are touched, and no root is needed.
private_apt() {
  apt-get -o "Dir::State::Lists=$WORK/apt/lists" -o "Dir::Cache=$WORK/apt/cache" \
    -o "Dir::Etc::SourceList=$WORK/apt/sources.list" -o Dir::Etc::SourceParts=/dev/null \
    -o APT::Sandbox::User= -o Acquire::Retries=3 -o Acquire::http::Timeout=30 -o Acquire::https::Timeout=30 "$@"
}

fetch_source() {
  local mirror keyring=/usr/share/keyrings/debian-archive-keyring.gpg
  mirror=$(mirror_from_index)
  [ -n "$mirror" ] || mirror=$(mirror_from_files)
  [ -n "$mirror" ] || die "apt names no Debian archive to fetch oneDNN's source from. Install oneDNN >= 3.7 with the" \
    'TBB runtime yourself and set dnnl_DIR to the folder of its dnnl-config.cmake.'
  mkdir -p "$WORK/apt/lists/partial" "$WORK/apt/cache/archives/partial"
  echo "deb-src [signed-by=$keyring] $mirror $SOURCE_SUITE main" >"$WORK/apt/sources.list"
  export -f private_apt
  export WORK
  run_step 'Finding the oneDNN source' 300 "$LOGS/onednn-find.log" bash -c 'private_apt update'
  (cd "$WORK" && run_step 'Fetching the oneDNN source' 600 "$LOGS/onednn-fetch.log" \
    bash -c 'private_apt source --download-only onednn')
  touch "$WORK/.fetched"
}

# Leaves out the sources of primitives that Moraine does not use, two thirds of the compile time (docs/decisions.md). Nothing
# that remains refers to them, so no program that links without them behaves otherwise. ONEDNN_ENABLE_PRIMITIVE alone
# only takes the primitives out of the library's tables; their sources would still be compiled. The older x64 GeMM kernels go
# by an option of their own (GEMM_KERNELS_ISA): matmul's brgemm does not use them.
drop_unused_sources() {
  local patterns
  read -r -d '' -a patterns <<'PATTERNS' || true
gemm_*convolution*.cpp gemm_*conv_zp*.cpp gemm_inner_product.cpp gemm_x8s8s32x_inner_product.cpp
n*_pooling.cpp n*_normalization.cpp ref_*.cpp simple_*.cpp rnn/*.cpp
x64/gemm_bf16_*.cpp x64/ip_convolution.cpp x64/jit_avx2_*.cpp x64/jit_avx512_common_*.cpp
x64/jit_avx512_core_*conv*.cpp x64/jit_avx512_core_resampling.cpp x64/jit_sse41_*.cpp
x64/jit_brdgmm_dw_conv.cpp x64/jit_brgemm_*.cpp x64/jit_gemm_x8s8s32x_*.cpp
x64/jit_uni_*_conv*.cpp x64/jit_uni_d*.cpp x64/jit_uni_x8s8s32x_*.cpp x64/jit_uni_*norm*.cpp x64/jit_uni_tbb_*.cpp
x64/jit_uni_binary*.cpp x64/jit_uni_eltwise*.cpp x64/jit_uni_*pool*.cpp x64/jit_uni_reduction*.cpp
x64/jit_uni_resampling*.cpp x64/jit_uni_softmax.cpp x64/jit_uni_xf16_sum.cpp
x64/lrn/*.cpp x64/prelu/*.cpp x64/rnn/*.cpp x64/shuffle/*.cpp
PATTERNS
  # Split into words above without expanding; here, in their folder, they expand.
  # shellcheck disable=SC2068
  (cd "$WORK/source/src/cpu" && rm -f ${patterns[@]})
}

unpack_source() {
  rm -rf "$WORK/source" "$WORK/build"
  mkdir -p "$WORK/source"
  tar -xf "$WORK"/onednn_"$VERSION"*.orig.tar.* -C "$WORK/source" --strip-components=1
  drop_unused_sources
  touch "$WORK/source/.unpacked"
}

build() {
  [ -f "$WORK/.fetched" ] || fetch_source
  [ -f "$WORK/source/.unpacked" ] || unpack_source
  run_step 'Configuring oneDNN' 300 "$LOGS/onednn-configure.log" \
    cmake -G Ninja -S "$WORK/source" -B "$WORK/build" "-DCMAKE_INSTALL_PREFIX=$PREFIX" -DCMAKE_BUILD_TYPE=Release \
    "-DCMAKE_CXX_FLAGS_RELEASE=-O1 -DNDEBUG" -DONEDNN_LIBRARY_TYPE=STATIC -DONEDNN_CPU_RUNTIME=TBB \
    -DONEDNN_GPU_RUNTIME=NONE -DONEDNN_BUILD_GRAPH=OFF -DONEDNN_BUILD_EXAMPLES=OFF -DONEDNN_BUILD_TESTS=OFF \
    -DONEDNN_BUILD_DOC=OFF -DONEDNN_ENABLE_WORKLOAD=INFERENCE -DONEDNN_EXPERIMENTAL_UKERNEL=ON \
    -DONEDNN_ENABLE_JIT_PROFILING=OFF -DONEDNN_ENABLE_ITT_TASKS=OFF -DONEDNN_ENABLE_GEMM_KERNELS_ISA=NONE \
    '-DONEDNN_ENABLE_PRIMITIVE=MATMUL;REORDER'
  run_step "Building oneDNN $VERSION (once)" 3600 "$LOGS/onednn-build.log" \
    cmake --build "$WORK/build" --parallel "$(compile_jobs)"
  # Installed beside its place and renamed: the prefix exists only when it is whole.
  rm -rf "$PREFIX.tmp"
  run_step 'Installing oneDNN' 300 "$LOGS/onednn-install.log" cmake --install "$WORK/build" --prefix "$PREFIX.tmp"
  rm -rf "$PREFIX"
  mv "$PREFIX.tmp" "$PREFIX"
  rm -rf "$WORK"
}

main() {
  case ${1-} in
    '') ;;
    -h | --help) usage && exit 0 ;;
    *) usage >&2 && exit 2 ;;
  esac
  if found_by_cmake; then exit 0; fi
  [ -z "${dnnl_DIR-}" ] || die "dnnl_DIR=$dnnl_DIR holds no oneDNN >= 3.7 with the TBB runtime; correct it or unset it."
  if ! is_finished "$PREFIX"; then
    mkdir -p "$CACHE" "$WORK" "$LOGS"
    exec 9>"$CACHE/onednn-$VERSION.lock"
    run_step 'Waiting for another oneDNN build' 4000 "$LOGS/onednn-wait.log" flock 9 ||
      die "another oneDNN build holds $CACHE/onednn-$VERSION.lock and does not end."
    is_finished "$PREFIX" || build
  fi
  echo "$PREFIX"
}

main "$@"
