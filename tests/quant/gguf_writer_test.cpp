#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "quant/gguf.h"
#include "support/expect_error.h"
#include "support/temp_dir.h"

namespace moraine::quant {
namespace {

using ::testing::ElementsAre;
using testing::expect_error;
using testing::TempDir;

std::span<const std::byte> bytes_of(std::string_view text) {
  return std::as_bytes(std::span(text));
}

TEST(GgufWriter, WritesWhatTheReaderReads) {
  const TempDir dir;
  const GgufWriter::Metadata metadata = {{"general.architecture", GgufValue::string("deepseek2")},
                                         {"list", GgufValue::array(GgufArray::of_strings({"x", "yz"}))},
                                         {"f", GgufValue::f32(1e-6f)},
                                         {"i", GgufValue::i32(-3)},
                                         {"b", GgufValue::boolean(false)}};
  const std::string matrix(2 * 34, 'm'), vector = "0123456789ab";
  {
    GgufWriter writer(dir / "m.gguf", metadata,
                      {{.name = "v", .dtype = DType::kF32, .shape = {3}, .size_bytes = vector.size()},
                       {.name = "m", .dtype = DType::kQ8_0, .shape = {2, 32}, .size_bytes = matrix.size()}});
    writer.write(1, 10, bytes_of(matrix).subspan(10));
    writer.write(0, 0, bytes_of(vector));
    writer.write(1, 0, bytes_of(matrix).first(10));
    EXPECT_FALSE(std::filesystem::exists(dir / "m.gguf"));
    writer.finish();
    EXPECT_EQ(writer.file_bytes(), std::filesystem::file_size(dir / "m.gguf"));
  }
  const Gguf gguf = Gguf::open(dir / "m.gguf");
  EXPECT_EQ(*gguf.metadata().at("general.architecture").text(), "deepseek2");
  EXPECT_EQ(gguf.metadata().at("list").array()->text(1), "yz");
  EXPECT_EQ(gguf.metadata().at("f").number(), 1e-6);
  EXPECT_EQ(gguf.metadata().at("i").integer(), -3);
  EXPECT_EQ(gguf.metadata().at("b").boolean(), false);
  const std::string file = testing::file_content(dir / "m.gguf");
  ASSERT_EQ(gguf.tensors().size(), 2u);
  EXPECT_EQ(file.substr(gguf.tensors()[0].offset, 12), vector);
  EXPECT_EQ(gguf.tensors()[1].offset % 32, 0u);
  EXPECT_THAT(gguf.tensors()[1].shape, ElementsAre(2, 32));
  EXPECT_EQ(file.substr(gguf.tensors()[1].offset, matrix.size()), matrix);
}

TEST(GgufWriter, TakesUpWhatAnInterruptedOneLeft) {
  const TempDir dir;
  const GgufWriter::Metadata metadata = {{"k", GgufValue::u32(1)}};
  const std::vector<TensorInfo> tensors = {{.name = "v", .dtype = DType::kF32, .shape = {3}, .size_bytes = 12},
                                           {.name = "w", .dtype = DType::kF32, .shape = {1}, .size_bytes = 4}};
  {
    GgufWriter writer(dir / "m.gguf", metadata, tensors);
    EXPECT_FALSE(writer.continues());
    writer.write(0, 0, bytes_of("0123456789ab"));
  }
  EXPECT_FALSE(std::filesystem::exists(dir / "m.gguf"));
  {
    GgufWriter writer(dir / "m.gguf", metadata, tensors);
    EXPECT_TRUE(writer.continues());
    std::string found(12, '?');
    writer.read(0, 0, std::as_writable_bytes(std::span(found)));
    EXPECT_EQ(found, "0123456789ab");
    writer.keep(0, 12);
    writer.write(1, 0, bytes_of("wxyz"));
    writer.finish();
  }
  EXPECT_FALSE(std::filesystem::exists(dir / "m.gguf.part"));
  const Gguf gguf = Gguf::open(dir / "m.gguf");
  const std::string file = testing::file_content(dir / "m.gguf");
  EXPECT_EQ(file.substr(gguf.tensors()[0].offset, 12), "0123456789ab");
  EXPECT_EQ(file.substr(gguf.tensors()[1].offset, 4), "wxyz");

  // Other metadata: nothing of the old bytes is left.
  { GgufWriter(dir / "n.gguf", metadata, tensors).write(0, 0, bytes_of("0123456789ab")); }
  const GgufWriter other(dir / "n.gguf", {{"k", GgufValue::u32(2)}}, tensors);
  EXPECT_FALSE(other.continues());
  std::string found(12, '?');
  other.read(0, 0, std::as_writable_bytes(std::span(found)));
  EXPECT_EQ(found, std::string(12, '\0'));
}

TEST(GgufWriter, RefusesWhatNoReaderTakes) {
  const TempDir dir;
  const auto write = [&](const GgufWriter::Metadata& metadata, const std::vector<TensorInfo>& tensors) {
    GgufWriter(dir / "m.gguf", metadata, tensors);
  };
  const TensorInfo one = {.name = "v", .dtype = DType::kF32, .shape = {3}, .size_bytes = 12};
  expect_error(ErrorKind::kBadFile, {"'v'", "same name"}, [&] { write({}, {one, one}); });
  expect_error(ErrorKind::kBadFile, {"'k'", "twice"}, [&] {
    write({{"k", GgufValue::u32(1)}, {"k", GgufValue::u32(1)}}, {});
  });
  expect_error(ErrorKind::kBadFile, {"'v'", "F8_E4M3"},
               [&] { write({}, {{.name = "v", .dtype = DType::kF8E4M3, .shape = {3}, .size_bytes = 3}}); });
  EXPECT_TRUE(std::filesystem::is_empty(dir.path()));
}

}  // namespace
}  // namespace moraine::quant
