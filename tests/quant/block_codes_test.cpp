#include "quant/block_codes.h"

#include <gtest/gtest.h>

#include <cstring>

#include "support/random_values.h"

// What is taken out of a block's bits and put back must be the same block.
namespace moraine::quant {
namespace {

template <typename Block>
class BlockCodes : public ::testing::Test {};

using Blocks = ::testing::Types<BlockQ4_0, BlockQ4_1, BlockQ5_0, BlockQ5_1, BlockIQ4_NL, BlockQ2_K, BlockQ3_K,
                                BlockQ4_K, BlockQ5_K, BlockQ6_K, BlockIQ4_XS>;
TYPED_TEST_SUITE(BlockCodes, Blocks);

TYPED_TEST(BlockCodes, WritingIsTheInverseOfReading) {
  testing::RandomValues random(1);
  for (int round = 0; round < 50; ++round) {
    unsigned char bytes[sizeof(TypeParam)];
    for (unsigned char& byte : bytes) byte = static_cast<unsigned char>(random.bits());
    TypeParam block;
    std::memcpy(&block, bytes, sizeof(block));
    uint8_t codes[TypeParam::kElements];
    read_codes(block, codes);
    write_codes(codes, block);
    EXPECT_EQ(std::memcmp(&block, bytes, sizeof(block)), 0);
  }
}

TEST(BlockFormats, Q4KScalePackingIsInvertible) {
  ScaleMin groups[8];
  for (int round = 0; round < 64; ++round) {
    for (int b = 0; b < 8; ++b) {
      groups[b] = {static_cast<uint8_t>((7 * round + 11 * b) % 64), static_cast<uint8_t>((5 * round + 29 * b) % 64)};
    }
    uint8_t packed[12];
    q4_k_store_scale_mins(groups, packed);
    for (int b = 0; b < 8; ++b) {
      ASSERT_EQ(q4_k_scale_min(packed, b).scale, groups[b].scale);
      ASSERT_EQ(q4_k_scale_min(packed, b).min, groups[b].min);
    }
  }
}

TEST(BlockFormats, SixBitScalePackingsAreInvertible) {
  for (int round = 0; round < 64; ++round) {
    uint8_t groups[16], packed[12];
    for (int g = 0; g < 16; ++g) groups[g] = static_cast<uint8_t>((7 * round + 11 * g) % 64);
    q3_k_store_scales(groups, packed);
    BlockIQ4_XS block{};
    iq4_xs_store_scales(groups, block);
    for (int g = 0; g < 16; ++g) ASSERT_EQ(q3_k_scale(packed, g), groups[g]);
    for (int b = 0; b < 8; ++b) ASSERT_EQ(iq4_xs_scale(block, b), groups[b]);
  }
}

}  // namespace
}  // namespace moraine::quant
