#include "cpu/isa.h"

#include <gtest/gtest.h>

#include <cstring>

namespace moraine::cpu {
namespace {

TEST(Isa, ScalarIsAlwaysThere) {
  EXPECT_TRUE(isa_available(Isa::kScalar));
  EXPECT_STREQ(select_kernels(Isa::kScalar).name, "scalar");
}

TEST(Isa, TheBestAvailableIsChosen) {
  const char* expected = isa_available(Isa::kAmx)      ? "amx"
                         : isa_available(Isa::kAvx512) ? "avx512"
                         : isa_available(Isa::kAvx2)   ? "avx2"
                                                       : "scalar";
  EXPECT_STREQ(select_kernels().name, expected);
  EXPECT_STREQ(isa_name(), expected);
}

TEST(Isa, EveryTableIsComplete) {
  for (const Isa isa : {Isa::kScalar, Isa::kAvx2, Isa::kAvx512, Isa::kAmx}) {
    if (!isa_available(isa)) continue;
    const KernelTable& kernels = select_kernels(isa);
    EXPECT_NE(kernels.decode_bf16, nullptr);
    EXPECT_NE(kernels.decode_f8_e4m3, nullptr);
    EXPECT_NE(kernels.decode_q8_0, nullptr);
    EXPECT_NE(kernels.decode_q4_0, nullptr);
    EXPECT_NE(kernels.decode_q4_k, nullptr);
    EXPECT_NE(kernels.int8_q8_0.stream, nullptr);
    EXPECT_NE(kernels.int8_q4_0.stream, nullptr);
    EXPECT_NE(kernels.int8_q4_k.stream, nullptr);
    EXPECT_NE(kernels.quantize_activations, nullptr);
    EXPECT_NE(kernels.multiply, nullptr);
    EXPECT_NE(kernels.combine_rows, nullptr);
    EXPECT_NE(kernels.rms_norm, nullptr);
    EXPECT_NE(kernels.silu_multiply, nullptr);
    EXPECT_NE(kernels.softmax_step, nullptr);
    EXPECT_NE(kernels.bf16.round, nullptr);
    EXPECT_NE(kernels.bf16.pair_rows, nullptr);
    EXPECT_NE(kernels.bf16.pair_f32_rows, nullptr);
    EXPECT_NE(kernels.bf16.multiply, nullptr);
    EXPECT_NE(kernels.bf16.rescale, nullptr);
    EXPECT_NE(kernels.bf16.softmax, nullptr);
    EXPECT_NE(kernels.bf16.absorb_q8_0, nullptr);
    EXPECT_NE(kernels.bf16.absorb_q4_0, nullptr);
    EXPECT_NE(kernels.bf16.absorb_q4_k, nullptr);
  }
}

}  // namespace
}  // namespace moraine::cpu
