#include "cpu/flash_block.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "cpu/isa.h"
#include "support/random_matrix.h"
#include "support/same_bits.h"

namespace moraine::cpu {
namespace {

TEST(FlashBlock, TransposesKeysAndZeroesWhatIsMissing) {
  testing::RandomValues random(1);
  for (const int64_t tokens : {1, 3, 4, 15, 16, 17, 29, 64}) {
    for (const int64_t width : {1, 3, 4, 9, 16}) {
      const std::vector<float> rows = testing::random_values(tokens * 20, 1.0, random);
      const int64_t groups = (tokens + 15) / 16, out_width = width + 2;
      std::vector<float> out(static_cast<size_t>(groups * out_width * 16), 9.0f);
      transpose_keys(rows.data(), 20, tokens, width, out.data(), out_width);
      for (int64_t s = 0; s < groups * 16; ++s) {
        for (int64_t c = 0; c < out_width; ++c) {
          const float expected = c >= width ? 9.0f : s >= tokens ? 0.0f : rows[static_cast<size_t>(s * 20 + c)];
          ASSERT_EQ(out[static_cast<size_t>((s / 16 * out_width + c) * 16 + s % 16)], expected) << s << " " << c;
        }
      }
    }
  }
}

/// Rows at `positions` over `tokens` cached tokens with random keys and values, in blocks of 16.
std::vector<float> attend(const KernelTable& kernels, const std::vector<int64_t>& positions,
                          const std::vector<float>& queries, const std::vector<float>& keys,
                          const std::vector<float>& values, int64_t tokens) {
  const auto count = std::ssize(positions);
  std::vector<float> scores(static_cast<size_t>(count * 16)), mixed(static_cast<size_t>(count * 16)),
      transposed(5 * 16);
  std::vector<SoftmaxState> softmax(positions.size());
  const FlashRows rows{.count = count,
                       .key_width = 5,
                       .value_width = 16,
                       .scale = 0.7f,
                       .queries = queries.data(),
                       .positions = positions.data(),
                       .scores = scores.data(),
                       .score_stride = 16,
                       .softmax = softmax.data(),
                       .mixed = mixed.data()};
  for (int64_t first = 0; first < tokens; first += 16) {
    const int64_t block_tokens = std::min<int64_t>(16, tokens - first);
    transpose_keys(keys.data() + first * 5, 5, block_tokens, 5, transposed.data(), 5);
    flash_block(kernels, rows, {first, block_tokens, transposed.data(), values.data() + first * 16, 16});
  }
  flash_finish(rows);
  return mixed;
}

TEST(FlashBlock, RowsSeeTheirPastOnlyAndTheSameInAnyCompany) {
  testing::RandomValues random(2);
  const int64_t tokens = 39;
  const std::vector<float> keys = testing::random_values(tokens * 5, 1.0, random);
  std::vector<float> values = testing::random_values(tokens * 16, 1.0, random);
  const std::vector<int64_t> positions = {0, 3, 3, 15, 16, 20, 31, 32, 38};
  const std::vector<float> queries = testing::random_values(std::ssize(positions) * 5, 1.0, random);
  const std::vector<float> together = attend(select_kernels(), positions, queries, keys, values, tokens);
  EXPECT_TRUE(testing::same_bits(attend(scalar_kernels(), positions, queries, keys, values, tokens), together));
  for (size_t i = 0; i < positions.size(); ++i) {
    const std::vector<float> own_query(queries.begin() + static_cast<int64_t>(i) * 5,
                                       queries.begin() + static_cast<int64_t>(i) * 5 + 5);
    const std::vector<float> alone =
        attend(select_kernels(), {positions[i]}, own_query, keys, values, positions[i] + 1);
    EXPECT_TRUE(testing::same_bits(alone, {together.data() + i * 16, 16})) << "row " << i;
  }
  // The first token's row sees one value.
  for (size_t c = 0; c < 16; ++c) EXPECT_EQ(together[c], values[c]);
}

}  // namespace
}  // namespace moraine::cpu
