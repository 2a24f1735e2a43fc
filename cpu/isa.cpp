#include "cpu/isa.h"

#include "quant/error.h"

namespace moraine::cpu {

bool isa_available(Isa isa) noexcept {
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
  switch (isa) {
    case Isa::kScalar:
      return true;
    case Isa::kAvx2:
      return avx2;
    case Isa::kAvx512:
      return avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
             __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
             __builtin_cpu_supports("avx512vnni");
  }
  return false;
}

const KernelTable& select_kernels(std::optional<Isa> forced) noexcept {
  Isa isa = Isa::kScalar;
  if (forced) {
    MORAINE_CHECK(isa_available(*forced));
    isa = *forced;
  } else if (isa_available(Isa::kAvx512)) {
    isa = Isa::kAvx512;
  } else if (isa_available(Isa::kAvx2)) {
    isa = Isa::kAvx2;
  }
  switch (isa) {
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
