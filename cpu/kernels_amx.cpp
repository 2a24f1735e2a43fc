#include "cpu/kernels_amx_bf16.h"
#include "cpu/kernels_amx_int8.h"
#include "cpu/kernels_amx_tiles.h"

namespace moraine::cpu {

const KernelTable& amx_kernels() noexcept {
  static const KernelTable table = [] {
    KernelTable kernels = avx512_kernels();
    kernels.name = "amx";
    kernels.begin = amx_begin;
    kernels.end = amx_end;
    kernels.int8_limbs = true;
    kernels.int8_multiply = amx_int8_multiply;
    kernels.int8_multiply_minima = amx_int8_multiply_minima;
    kernels.bf16.multiply = amx_bf16_multiply;
    return kernels;
  }();
  return table;
}

}  // namespace moraine::cpu
