#include "quant/iq_grids.h"

#include <gtest/gtest.h>

#include <span>

#include "quant/checksum.h"

namespace moraine::quant {
namespace {

template <typename Grid>
std::string checksum_of(const Grid& grid) {
  return checksum_text(checksum(std::as_bytes(std::span(grid))));
}

/// XXH3-64 of the tables as the gguf package 0.19 has them (int8, row by row).
TEST(IqGrids, AreThePublishedTables) {
  EXPECT_EQ(checksum_of(kIq2XxsGrid), "3de7d625dc4b1f07");
  EXPECT_EQ(checksum_of(kIq2XsGrid), "79a31619c2aa4027");
  EXPECT_EQ(checksum_of(kIq2SGrid), "c5212534caf3b5bf");
  EXPECT_EQ(checksum_of(kIq3XxsGrid), "cb32234e3a15f5a7");
  EXPECT_EQ(checksum_of(kIq3SGrid), "cd5ca92a3ff62aa6");
  EXPECT_EQ(checksum_of(kIq1SGrid), "273c860b28bbb277");
}

TEST(IqGrids, SignsAreEvenInNumber) {
  std::array<uint8_t, 128> all{};
  for (uint32_t i = 0; i < 128; ++i) {
    all[i] = even_signs(i);
    EXPECT_EQ(std::popcount(all[i]) % 2, 0);
    EXPECT_EQ(all[i] & 127u, i);
  }
  EXPECT_EQ(checksum_of(all), "c4b054afe9602361") << "ksigns_iq2xs of the gguf package";
}

}  // namespace
}  // namespace moraine::quant
