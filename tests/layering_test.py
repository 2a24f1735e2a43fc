#!/usr/bin/env python3
"""Fails on anything in the source tree that breaks the layers of docs/architecture.md.

    layering_test.py ROOT          check the tree at ROOT, print each finding as file:line: what
    layering_test.py --self-test   prove on small bad trees that every rule catches its fault

Checked: includes between folders, external headers by folder, libraries linked by a folder's CMakeLists.txt, files of
more than 700 lines, `using namespace` in headers, and host names or this machine's paths in build and set-up files.
"""

import pathlib
import re
import sys
import tempfile

# What a folder may include, itself included. The order is that of the CMake folders.
ALLOWED = {
    "quant": {"quant"},
    "offload": {"quant", "offload"},
    "runtime": {"quant", "offload", "runtime"},
    "cpu": {"quant", "offload", "runtime", "cpu"},
    "gpu": {"quant", "offload", "runtime", "gpu"},
    "tools": {"quant", "offload", "runtime", "cpu", "gpu", "tools"},
    "tests": {"quant", "offload", "runtime", "cpu", "gpu", "tools", "tests", "support", "fuzz"},
}

# External headers and the only folders that may include them. tests/<folder>/ may use what <folder> may.
EXTERNAL = [
    (r"hwloc(\.h|/)", "hwloc", {"offload"}),
    (r"(liburing(\.h|/)|linux/io_uring\.h)", "liburing", {"offload"}),
    (r"(oneapi/dnnl/|dnnl)", "oneDNN", {"cpu"}),
    (r"(oneapi/tbb|tbb/)", "oneTBB", {"cpu"}),
    (r"(cuda|cublas|cub/|thrust/|cooperative_groups|nvtx|mma\.h)", "CUDA", {"gpu"}),
    (r"CLI/", "CLI11", {"tools"}),
    (r"(histedit\.h|editline/|readline/)", "libedit", {"tools"}),
    (r"(boost/|md4c|sqlite3)", "a library of tools/", {"tools"}),
    (r"nlohmann/", "nlohmann-json outside quant/json.h", set()),
    (r"xxh(ash|3)", "xxHash", {"quant"}),
    (r"openssl/", "libcrypto", {"quant"}),
    (r"pcre2", "PCRE2", {"runtime"}),
    (r"utf8proc", "utf8proc", {"runtime"}),
    (r"(gtest/|gmock/|benchmark/)", "a test library", {"tests"}),
]
SYSTEM_FOLDERS = {"sys", "linux", "asm", "arpa", "net", "netinet", "fmt", "sanitizer"}

MAX_LINES = 700
SOURCE_SUFFIXES = {".h", ".cpp", ".cu", ".cuh", ".py", ".sh"}
INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]')
LINKED_LAYER = re.compile(r"\bmoraine_(quant|offload|runtime|cpu|gpu|tools)\b")
URL_WITH_HOST = re.compile(r"\b(?:https?|ftp)://[A-Za-z0-9]")
MACHINE_PATH = re.compile(r"(?<![\w$}.~])/(?:home|root|Users|work)/\w")


def external_finding(folder, header, path):
    """What is wrong with including external `header` from `path` (relative) in `folder`, or None."""
    for pattern, name, folders in EXTERNAL:
        if re.match(pattern, header):
            mirrored = path.parts[1] if folder == "tests" and len(path.parts) > 2 else None
            at_the_door = path == pathlib.PurePath("quant/json.h") and header.startswith("nlohmann/")
            if folder in folders or mirrored in folders or at_the_door:
                return None
            return f"<{header}>: {name} is not for {folder}/"
    first, slash, _ = header.partition("/")
    if slash and first not in SYSTEM_FOLDERS:
        return f"<{header}>: unknown external library; give it a folder in tests/layering_test.py"
    return None


def own_finding(folder, header, path):
    """What is wrong with including "header" from `path` (relative) in `folder`, or None."""
    target, slash, rest = header.partition("/")
    if not slash or (target not in ALLOWED["tests"]):
        return f'"{header}": write the path from the root, as in "quant/error.h"'
    if target not in ALLOWED[folder]:
        return f'"{header}": {folder}/ may not include {target}/'
    is_kernel = folder in ("cpu", "gpu") and path.name.startswith("kernels")
    if is_kernel and target != "quant" and not (target == folder and rest.startswith("kernels")):
        return f'"{header}": a kernel file includes only quant/ and {folder}/kernels*.h'
    return None


def include_findings(folder, path, lines):
    for number, line in enumerate(lines, 1):
        match = INCLUDE.match(line)
        if not match:
            continue
        quote, header = match.groups()
        is_external = quote == "<" or any(re.match(pattern, header) for pattern, _, _ in EXTERNAL)
        what = external_finding(folder, header, path) if is_external else own_finding(folder, header, path)
        if what:
            yield number, what


def style_findings(path, lines):
    if path.suffix in SOURCE_SUFFIXES and len(lines) > MAX_LINES:
        yield MAX_LINES + 1, f"{len(lines)} lines; split the file, {MAX_LINES} is the most"
    if path.suffix in (".h", ".cuh"):
        for number, line in enumerate(lines, 1):
            if re.match(r"\s*using\s+namespace\b", line):
                yield number, "`using namespace` in a header"


def is_build_file(path):
    return path.suffix in (".sh", ".cmake", ".py") or path.parts[0] == ".ci" or path.name in (
        "CMakeLists.txt", "CMakePresets.json")


def build_file_findings(path, lines):
    for number, line in enumerate(lines, 1):
        if URL_WITH_HOST.search(line):
            yield number, "an address with a host name; derive it or leave it out"
        if MACHINE_PATH.search(line):
            yield number, "a path of one machine"


def link_findings(folder, lines):
    for number, line in enumerate(lines, 1):
        for target in LINKED_LAYER.findall(line.partition("#")[0]):
            if target not in ALLOWED[folder]:
                yield number, f"{folder}/ may not link moraine_{target}"


def files_of(root):
    """Every file the rules speak of, relative to root."""
    for folder in [*ALLOWED, "cmake", ".ci"]:
        yield from (p.relative_to(root) for p in sorted((root / folder).rglob("*"))
                    if p.is_file() and "__pycache__" not in p.parts)
    yield from (p.relative_to(root) for p in sorted(root.iterdir()) if p.is_file())


def check(root):
    """All findings of the tree as sorted (file, line, what)."""
    findings = []
    for path in files_of(root):
        folder = path.parts[0]
        is_source = path.suffix in SOURCE_SUFFIXES
        if not is_source and not is_build_file(path):
            continue
        lines = (root / path).read_text(encoding="utf-8", errors="replace").splitlines()
        found = list(style_findings(path, lines))
        if folder in ALLOWED and path.suffix in (".h", ".cpp", ".cu", ".cuh"):
            found += include_findings(folder, path, lines)
        if folder in ALLOWED and path.name == "CMakeLists.txt" and len(path.parts) == 2:
            found += link_findings(folder, lines)
        if is_build_file(path):
            found += build_file_findings(path, lines)
        findings += [(path.as_posix(), number, what) for number, what in found]
    return sorted(findings)


# (file, content, line of the one expected finding or None). The URL and the path are put together here, so that this
# file does not contain what it forbids.
SELF_TESTS = [
    ("quant/a.cpp", '#include "quant/error.h"\n#include <nlohmann/json.hpp>\n', 2),
    ("quant/json.h", "#include <nlohmann/json.hpp>\n", None),
    ("quant/a.cpp", '#include <vector>\n\n#include "offload/expert_id.h"\n', 3),
    ("quant/a.cpp", '#include "error.h"\n', 1),
    ("offload/a.cpp", "#include <hwloc.h>\n#include <liburing.h>\n#include <fmt/format.h>\n#include <sys/stat.h>\n", None),
    ("offload/a.h", '  #  include "runtime/model.h"\n', 1),
    ("runtime/a.cpp", "#include <hwloc.h>\n", 1),
    ("runtime/a.cpp", "#include <liburing.h>\n", 1),
    ("runtime/a.cpp", '#include "cpu/isa.h"\n', 1),
    ("runtime/a.cpp", "#include <utf8proc.h>\n#include <pcre2.h>\n", None),
    ("runtime/a.cpp", "#include <xxhash.h>\n", 1),
    ("runtime/a.cpp", "#include <absent/library.h>\n", 1),
    ("cpu/a.cpp", "#include <oneapi/dnnl/dnnl.hpp>\n#include <oneapi/tbb/task_arena.h>\n#include <tbb/tbb.h>\n", None),
    ("cpu/a.cpp", '#include "gpu/device.h"\n', 1),
    ("gpu/a.cu", '#include "cpu/isa.h"\n', 1),
    ("gpu/a.cu", "#include <cuda_runtime_api.h>\n#include <cublasLt.h>\n", None),
    ("cpu/a.cpp", "#include <cuda_runtime.h>\n", 1),
    ("tools/a.cpp", "#include <oneapi/dnnl/dnnl.hpp>\n", 1),
    ("cpu/kernels_avx2.cpp", '#include "cpu/kernels.h"\n#include "cpu/kernels_impl.h"\n#include "quant/dtype.h"\n', None),
    ("cpu/kernels_avx2.cpp", '#include "runtime/backend.h"\n', 1),
    ("cpu/kernels_avx2.cpp", '#include "cpu/isa.h"\n', 1),
    ("tools/a.cpp", '#include <CLI/CLI.hpp>\n#include <histedit.h>\n#include "gpu/device.h"\n', None),
    ("runtime/a.cpp", "#include <CLI/CLI.hpp>\n", 1),
    ("runtime/a.cpp", "#include <histedit.h>\n", 1),
    ("runtime/a.cpp", "#include <gtest/gtest.h>\n", 1),
    ("tests/cpu/a_test.cpp", '#include <gtest/gtest.h>\n#include <oneapi/tbb/tbb.h>\n#include "support/temp_dir.h"\n', None),
    ("tests/quant/a_test.cpp", "#include <oneapi/tbb/tbb.h>\n", 1),
    ("quant/a.h", "#pragma once\nusing namespace std;\n", 2),
    ("quant/a.cpp", "using namespace std::literals;\n", None),
    ("quant/a.cpp", "\n" * MAX_LINES, None),
    ("quant/a.cpp", "\n" * (MAX_LINES + 1), MAX_LINES + 1),
    ("quant/CMakeLists.txt", "moraine_layer(quant)\ntarget_link_libraries(moraine_quant PUBLIC moraine_cpu)\n", 2),
    ("offload/CMakeLists.txt", "moraine_layer(offload DEPENDS moraine_quant)\n", None),
    ("tools/setup/a.sh", "get " + "https:" + "//host.example/file\n", 1),
    ("tools/setup/a.sh", "cat $HOME/work/x; ls /usr/share\n", None),
    ("CMakeLists.txt", "set(x " + "/home" + "/someone/x)\n", 1),
    (".ci/run", "cd " + "/root" + "/checkout\n", 1),
]


def self_test():
    """Every rule on a tree of one file: finds exactly its line, or nothing. Returns the number of wrong answers."""
    wrong = 0
    for path, content, expected_line in SELF_TESTS:
        with tempfile.TemporaryDirectory() as folder:
            root = pathlib.Path(folder)
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_text(content, encoding="utf-8")
            expected = [] if expected_line is None else [(path, expected_line)]
            found = check(root)
            if [(file, line) for file, line, _ in found] != expected:
                wrong += 1
                print(f"self-test: {path} {content[:80]!r}: expected {expected}, found {found}")
    print(f"layering self-test: {len(SELF_TESTS) - wrong} passed, {wrong} failed")
    return wrong


def main():
    if len(sys.argv) != 2:
        print(__doc__, file=sys.stderr)
        return 2
    if sys.argv[1] == "--self-test":
        return 1 if self_test() else 0
    root = pathlib.Path(sys.argv[1])
    if not (root / "quant").is_dir():
        print(f"{root}: no quant/ folder, so not the root of the source tree", file=sys.stderr)
        return 2
    findings = check(root)
    for file, line, what in findings:
        print(f"{file}:{line}: {what}")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
