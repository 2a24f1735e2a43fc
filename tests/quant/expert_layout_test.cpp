#include "quant/expert_layout.h"

#include <gtest/gtest.h>

#include <vector>

#include "quant/aligned_buffer.h"
#include "support/expect_error.h"
#include "support/random_values.h"

namespace moraine::quant {
namespace {

TEST(ExpertLayout, OfTinyR1FallsBackOnlyWhereRowsAreTooShort) {
  const ExpertLayout layout = ExpertLayout::make(DType::kQ4_K, 256, 128);
  EXPECT_EQ(layout.gate, (MatrixDesc{DType::kQ4_K, 128, 256}));
  EXPECT_EQ(layout.up, layout.gate);
  EXPECT_EQ(layout.down, (MatrixDesc{DType::kQ4_0, 256, 128}));
  EXPECT_EQ(layout.up_offset_bytes, 128u * 144);
  EXPECT_EQ(layout.down_offset_bytes, 2u * 128 * 144);
  EXPECT_EQ(layout.record_bytes, 57344u);  // 55296 bytes of matrices, up to a multiple of 4096
}

TEST(ExpertLayout, OfR1MatchesTheDesignsArithmetic) {
  const ExpertLayout layout = ExpertLayout::make(DType::kQ4_K, 7168, 2048);
  EXPECT_EQ(layout.record_bytes, 3u * 7168 * 2048 / 256 * 144);  // 24.8 MB, already a multiple of 4096
}

TEST(ExpertLayout, OffsetsAndSizesAreAligned) {
  for (const DType type : {DType::kF32, DType::kBF16, DType::kF8E4M3, DType::kQ8_0, DType::kQ4_0, DType::kQ4_K}) {
    for (const int64_t hidden : {7, 32, 96, 256, 300}) {
      for (const int64_t intermediate : {1, 31, 64, 128}) {
        const ExpertLayout layout = ExpertLayout::make(type, hidden, intermediate);
        EXPECT_EQ(layout.up_offset_bytes % 64, 0u);
        EXPECT_EQ(layout.down_offset_bytes % 64, 0u);
        EXPECT_EQ(layout.record_bytes % 4096, 0u);
        const uint64_t end = layout.down_offset_bytes + packed_bytes(layout.down.type, hidden, intermediate);
        EXPECT_GE(layout.record_bytes, end);
        EXPECT_LT(layout.record_bytes, end + 4096);
      }
    }
  }
}

TEST(ExpertLayout, ViewFindsTheMatricesInARecord) {
  const ExpertLayout layout = ExpertLayout::make(DType::kF32, 5, 3);
  AlignedBuffer record(layout.record_bytes);
  testing::RandomValues random(1);
  const std::vector<float> gate = random.weights(15), up = random.weights(15), down = random.weights(15);
  const uint64_t gate_bytes = packed_bytes(DType::kF32, 3, 5);
  const uint64_t down_bytes = packed_bytes(DType::kF32, 5, 3);
  quantize_packed(DType::kF32, gate, 3, 5, record.span().subspan(0, gate_bytes));
  quantize_packed(DType::kF32, up, 3, 5, record.span().subspan(layout.up_offset_bytes, gate_bytes));
  quantize_packed(DType::kF32, down, 5, 3, record.span().subspan(layout.down_offset_bytes, down_bytes));

  const ExpertView view = expert_view(layout, record.data());
  std::vector<float> values(15);
  dequantize_packed(view.gate, 0, 3, values);
  EXPECT_EQ(values, gate);
  dequantize_packed(view.up, 0, 3, values);
  EXPECT_EQ(values, up);
  dequantize_packed(view.down, 0, 5, values);
  EXPECT_EQ(values, down);
}

TEST(ExpertLayout, RefusesImpossibleShapes) {
  const MatrixDesc gate{DType::kBF16, 8, 4};
  const MatrixDesc down{DType::kBF16, 4, 8};
  EXPECT_NO_THROW(ExpertLayout::make(gate, gate, down));
  testing::expect_error(ErrorKind::kBadFile, {"belong together", "[8, 4]", "[4, 7]"}, [&] {
    ExpertLayout::make(gate, gate, {DType::kBF16, 4, 7});
  });
  testing::expect_error(ErrorKind::kBadFile, {"belong together"}, [&] {
    ExpertLayout::make(gate, {DType::kBF16, 4, 8}, down);
  });
  testing::expect_error(ErrorKind::kBadFile, {"[0, 8]"}, [] { ExpertLayout::make(DType::kBF16, 8, 0); });
  testing::expect_error(ErrorKind::kBadFile, {"shape"}, [] { ExpertLayout::make(DType::kQ8_0, -32, 32); });
  testing::expect_error(ErrorKind::kBadFile, {"I64"}, [] { ExpertLayout::make(DType::kI64, 8, 8); });
}

}  // namespace
}  // namespace moraine::quant
