#include "quant/iq_grids.h"

#include <gtest/gtest.h>

#include <span>

#include "quant/checksum.h"

namespace moraine::quant {
namespace {

template <typename Grid>
std::string checksum_of(const Grid& grid) {
  return checksum_text(checksum(std::as_bytes(std::span(grid.rows))));
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

TEST(IqGrids, SignsAreThePublishedTable) {
  EXPECT_EQ(checksum_of(kEvenSigns), "c4b054afe9602361") << "ksigns_iq2xs of the gguf package";
  EXPECT_EQ(kSignMasks.rows[0x81], 0xff000000000000ffu);
}

}  // namespace
}  // namespace moraine::quant
