#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <string>
#include <vector>

#include "quant/dequantize.h"
#include "quant/gguf.h"
#include "support/test_data.h"

namespace moraine::quant {
namespace {

using ::testing::ElementsAre;

std::string bytes_of(const Gguf& gguf, const TensorInfo& tensor) {
  return read_text(gguf.files()[static_cast<size_t>(tensor.file)], 1 << 20).substr(tensor.offset, tensor.size_bytes);
}

/// The five tensors that tests/data/gguf/make.py puts into each of its models.
void expect_tensors(const Gguf& gguf) {
  std::map<std::string, TensorInfo> tensors;
  for (const TensorInfo& tensor : gguf.tensors()) tensors[tensor.name] = tensor;
  ASSERT_EQ(tensors.size(), 5u);
  EXPECT_EQ(tensors["vector"].dtype, DType::kF32);
  EXPECT_THAT(tensors["vector"].shape, ElementsAre(3));
  EXPECT_EQ(tensors["half"].dtype, DType::kF16);
  EXPECT_THAT(tensors["half"].shape, ElementsAre(2, 3));
  EXPECT_EQ(tensors["blocks"].dtype, DType::kQ8_0);
  EXPECT_THAT(tensors["blocks"].shape, ElementsAre(4, 64));
  EXPECT_THAT(tensors["stacked"].shape, ElementsAre(2, 3, 4));
  EXPECT_EQ(tensors["bytes"].dtype, DType::kI8);

  EXPECT_EQ(bytes_of(gguf, tensors["bytes"]), "\x01\xFE\x03");
  std::vector<float> vector(3), half(6), blocks(256), stacked(24);
  const auto values = [&](const char* name, std::vector<float>& out) {
    const std::string bytes = bytes_of(gguf, tensors[name]);
    dequantize_row(tensors[name].dtype, std::as_bytes(std::span(bytes)), out);
  };
  values("vector", vector);
  EXPECT_THAT(vector, ElementsAre(0.5f, -1.25f, 3.0f));
  values("half", half);
  EXPECT_THAT(half, ElementsAre(-10.0f, -9.875f, -9.75f, -9.625f, -9.5f, -9.375f));
  values("stacked", stacked);
  EXPECT_EQ(stacked[23], 23.0f);
  values("blocks", blocks);
  for (size_t i = 0; i < blocks.size(); ++i) EXPECT_NEAR(blocks[i], static_cast<float>(i) / 8 - 10, 0.09f) << i;
}

TEST(GgufGolden, ReadsWhatTheGgufPackageWrote) {
  const Gguf gguf = Gguf::open(testing::test_data("gguf/small.gguf"));
  const GgufMetadata& metadata = gguf.metadata();
  EXPECT_EQ(*metadata.at("general.architecture").text(), "deepseek2");
  EXPECT_EQ(metadata.at("test.u8").integer(), 200);
  EXPECT_EQ(metadata.at("test.i8").integer(), -100);
  EXPECT_EQ(metadata.at("test.u16").integer(), 60000);
  EXPECT_EQ(metadata.at("test.i16").integer(), -30000);
  EXPECT_EQ(metadata.at("test.u32").integer(), 4000000000);
  EXPECT_EQ(metadata.at("test.i32").integer(), -2000000000);
  EXPECT_EQ(metadata.at("test.u64").integer(), int64_t{1} << 40);
  EXPECT_EQ(metadata.at("test.i64").integer(), -(int64_t{1} << 40));
  EXPECT_EQ(metadata.at("test.f32").number(), 0.1);
  EXPECT_EQ(metadata.at("test.f64").number(), 0.1);
  EXPECT_EQ(metadata.at("test.bool").boolean(), true);
  EXPECT_EQ(*metadata.at("test.string").text(), "Ġthe\n");
  const GgufArray& strings = *metadata.at("test.strings").array();
  ASSERT_EQ(strings.count, 3u);
  EXPECT_EQ(strings.text(1), "");
  EXPECT_EQ(strings.text(2), "<｜User｜>");
  const GgufArray& integers = *metadata.at("test.integers").array();
  ASSERT_EQ(integers.count, 3u);
  EXPECT_EQ(integers.integer(1), -2);
  EXPECT_EQ(metadata.at("test.floats").array()->element, GgufType::kF32);
  expect_tensors(gguf);
}

TEST(GgufGolden, ReadsWhatTheGgufPackageSplit) {
  const Gguf gguf = Gguf::open(testing::test_data("gguf/parts-00002-of-00002.gguf"));
  ASSERT_EQ(gguf.files().size(), 2u);
  expect_tensors(gguf);
}

}  // namespace
}  // namespace moraine::quant
