#include <gtest/gtest.h>

#include <cstring>

#include "quant/safetensors.h"
#include "support/expect_error.h"
#include "support/temp_dir.h"

namespace moraine::quant {
namespace {

using testing::expect_error;
using testing::file_content;
using testing::TempDir;

TensorInfo tensor(std::string name, DType dtype, std::vector<int64_t> shape, uint64_t size_bytes) {
  TensorInfo info;
  info.name = std::move(name);
  info.dtype = dtype;
  info.shape = std::move(shape);
  info.offset = 999;  // ignored
  info.file = 7;      // ignored
  info.size_bytes = size_bytes;
  return info;
}

std::span<const std::byte> bytes_of(std::string_view text) {
  return std::as_bytes(std::span(text));
}

TEST(SafetensorsWriter, WhatIsWrittenIsRead) {
  const TempDir dir;
  const auto file = dir / "m.safetensors";
  {
    SafetensorsWriter writer(file, {tensor("b.weight", DType::kF32, {1, 2}, 8), tensor("a \"ä\"\n", DType::kU8, {3}, 3),
                                    tensor("empty", DType::kBF16, {0, 4}, 0), tensor("s", DType::kI16, {}, 2)});
    writer.write(bytes_of("12345678"));
    writer.write(bytes_of("abc"));
    writer.write({});
    writer.write(bytes_of("xy"));
    writer.finish();
  }
  const auto tensors = read_safetensors_header(file);
  const std::string bytes = file_content(file);
  ASSERT_EQ(tensors.size(), 4u);
  EXPECT_EQ(tensors[0].name, "b.weight");
  EXPECT_EQ(tensors[0].dtype, DType::kF32);
  EXPECT_EQ(tensors[0].shape, (std::vector<int64_t>{1, 2}));
  EXPECT_EQ(bytes.substr(tensors[0].offset, tensors[0].size_bytes), "12345678");
  EXPECT_EQ(tensors[1].name, "a \"ä\"\n");
  EXPECT_EQ(bytes.substr(tensors[1].offset, tensors[1].size_bytes), "abc");
  EXPECT_EQ(tensors[2].name, "empty");
  EXPECT_EQ(tensors[3].name, "s");
  EXPECT_EQ(bytes.substr(tensors[3].offset), "xy");
}

TEST(SafetensorsWriter, DataStartAtAMultipleOfEight) {
  const TempDir dir;
  for (size_t length = 1; length <= 9; ++length) {
    const auto file = dir / "m.safetensors";
    SafetensorsWriter writer(file, {tensor(std::string(length, 'n'), DType::kU8, {1}, 1)});
    writer.write(bytes_of("x"));
    writer.finish();
    EXPECT_EQ(read_safetensors_header(file).at(0).offset % 8, 0u) << length;
  }
}

TEST(SafetensorsWriter, NoTensorsIsAValidFile) {
  const TempDir dir;
  SafetensorsWriter(dir / "m.safetensors", {}).finish();
  EXPECT_TRUE(read_safetensors_header(dir / "m.safetensors").empty());
}

TEST(SafetensorsWriter, UnfinishedLeavesNoFile) {
  const TempDir dir;
  {
    SafetensorsWriter writer(dir / "m.safetensors", {tensor("w", DType::kU8, {2}, 2)});
    writer.write(bytes_of("ab"));
  }
  EXPECT_TRUE(std::filesystem::is_empty(dir.path()));
}

TEST(SafetensorsWriter, RefusesWhatTheReaderWouldRefuse) {
  const TempDir dir;
  const auto file = dir / "m.safetensors";
  expect_error(ErrorKind::kBadFile, {"'w'", "twice"}, [&] {
    SafetensorsWriter(file, {tensor("w", DType::kU8, {1}, 1), tensor("w", DType::kU8, {1}, 1)});
  });
  expect_error(ErrorKind::kBadFile, {"'w'", "do not match"},
               [&] { SafetensorsWriter(file, {tensor("w", DType::kF32, {2}, 7)}); });
  expect_error(ErrorKind::kBadFile, {"unknown dtype", "Q8_0"},
               [&] { SafetensorsWriter(file, {tensor("w", DType::kQ8_0, {32}, 34)}); });
  expect_error(ErrorKind::kBadFile, {"'w\\xff'", "UTF-8"},
               [&] { SafetensorsWriter(file, {tensor("w\xff", DType::kU8, {1}, 1)}); });
  EXPECT_TRUE(std::filesystem::is_empty(dir.path()));
}

TEST(SafetensorsWriter, WritesBlockFormatsForAPack) {
  const TempDir dir;
  const auto file = dir / "m.safetensors";
  SafetensorsWriter writer(file, {tensor("w", DType::kQ8_0, {1, 32}, 34)}, BlockFormats::kAllowed);
  writer.write(bytes_of("0123456789012345678901234567890123"));
  writer.finish();
  EXPECT_EQ(read_safetensors_header(file, BlockFormats::kAllowed).at(0).dtype, DType::kQ8_0);
  expect_error(ErrorKind::kBadFile, {"unknown dtype", "Q8_0", "finished Moraine pack"},
               [&] { read_safetensors_header(file); });
}

TEST(SafetensorsWriter, SaysWhereItCannotWrite) {
  expect_error(ErrorKind::kIo, {"/nowhere/m.safetensors"}, [] { SafetensorsWriter("/nowhere/m.safetensors", {}); });
}

TEST(SafetensorsWriterDeathTest, HoldsTheCallerToTheAnnouncedTensors) {
  const TempDir dir;
  SafetensorsWriter writer(dir / "m.safetensors", {tensor("w", DType::kU8, {2}, 2)});
  EXPECT_DEATH(writer.finish(), "internal error");
  EXPECT_DEATH(writer.write(bytes_of("abc")), "internal error");
  writer.write(bytes_of("ab"));
  EXPECT_DEATH(writer.write(bytes_of("ab")), "internal error");
}

}  // namespace
}  // namespace moraine::quant
