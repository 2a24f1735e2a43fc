#pragma once

#include <optional>

#include "cpu/kernels.h"

namespace moraine::cpu {

/// Instruction sets that kernels exist for, slowest first. kAvx512 includes VNNI: the few processors that have AVX-512
/// without it (Skylake-X) use AVX2. kAmx is kAvx512 with products of matrices on AMX tiles.
enum class Isa { kScalar, kAvx2, kAvx512, kAmx };

/// Whether this machine, and its operating system, run the kernels of `isa`.
bool isa_available(Isa isa) noexcept;

/// Whether this process may use tiles: the processor has AMX with int8 and bf16, and the operating system grants the
/// larger state, which is asked for once per process. It then holds for all its threads, whenever they started.
bool amx_usable() noexcept;

/// Name of the best available instruction set: "amx", "avx512", "avx2" or "scalar".
const char* isa_name() noexcept;

/// The kernels of `isa`, or of the best available one. A forced instruction set must be available (a programmer's
/// promise).
const KernelTable& select_kernels(std::optional<Isa> forced = std::nullopt) noexcept;

}  // namespace moraine::cpu
