#include "cpu/isa.h"

#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "quant/error.h"

namespace moraine::cpu {
namespace {

/// clang 14's __builtin_cpu_supports does not know it.
bool has_f16c() noexcept {
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  return __get_cpuid(1, &eax, &ebx, &ecx, &edx) != 0 && (ecx & bit_F16C) != 0;
}

bool ask_for_amx() noexcept {
  constexpr unsigned kBf16 = 1u << 22, kTile = 1u << 24, kInt8 = 1u << 25;  // CPUID 7.0, EDX
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  if (__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) == 0) return false;
  if ((edx & kBf16) == 0 || (edx & kTile) == 0 || (edx & kInt8) == 0) return false;
  constexpr int kArchReqXcompPerm = 0x1023, kXtileData = 18;  // asm/prctl.h; x86 state component XTILEDATA
  return syscall(SYS_arch_prctl, kArchReqXcompPerm, kXtileData) == 0;
}

}  // namespace

bool amx_usable() noexcept {
  static const bool usable = ask_for_amx();
  return usable;
}

bool isa_available(Isa isa) noexcept {
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && has_f16c();
  switch (isa) {
    case Isa::kScalar:
      return true;
    case Isa::kAvx2:
      return avx2;
    case Isa::kAvx512:
      return avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
             __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
             __builtin_cpu_supports("avx512vnni");
    case Isa::kAmx:
      return isa_available(Isa::kAvx512) && amx_usable();
  }
  return false;
}

const KernelTable& select_kernels(std::optional<Isa> forced) noexcept {
  Isa isa = Isa::kScalar;
  if (forced) {
    MORAINE_CHECK(isa_available(*forced));
    isa = *forced;
  } else if (isa_available(Isa::kAmx)) {
    isa = Isa::kAmx;
  } else if (isa_available(Isa::kAvx512)) {
    isa = Isa::kAvx512;
  } else if (isa_available(Isa::kAvx2)) {
    isa = Isa::kAvx2;
  }
  switch (isa) {
    case Isa::kAmx:
      return amx_kernels();
    case Isa::kAvx512:
      return avx512_kernels();
    case Isa::kAvx2:
      return avx2_kernels();
    case Isa::kScalar:
      break;
  }
  return scalar_kernels();
}

const char* isa_name() noexcept {
  return select_kernels().name;
}

}  // namespace moraine::cpu
