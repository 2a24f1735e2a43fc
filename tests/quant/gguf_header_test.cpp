#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <cstring>
#include <limits>
#include <string>

#include "quant/gguf.h"
#include "support/expect_error.h"
#include "support/gguf_bytes.h"

namespace moraine::quant {
namespace {

using ::testing::ElementsAre;
using testing::expect_error;
using testing::GgufBytes;

constexpr uint64_t kHuge = std::numeric_limits<uint64_t>::max();
constexpr uint32_t kU8 = 0, kU32 = 4, kBool = 7, kString = 8, kArray = 9;
constexpr uint32_t kF32Tensor = 0, kQ8_0Tensor = 8, kQ4_KTensor = 12;

GgufPart parse(const std::string& bytes) {
  const auto read = [&](std::span<std::byte> out, uint64_t offset) {
    ASSERT_LE(offset + out.size(), bytes.size());
    std::memcpy(out.data(), bytes.data() + offset, out.size());
  };
  return parse_gguf(read, bytes.size(), "model.gguf");
}

/// Expects a refusal that names the file and these parts, in a tenth of a second.
void expect_bytes_refused(const std::string& bytes, std::initializer_list<std::string_view> parts) {
  const auto begun = std::chrono::steady_clock::now();
  expect_error(ErrorKind::kBadFile, parts, [&] { parse(bytes); });
  expect_error(ErrorKind::kBadFile, {"model.gguf"}, [&] { parse(bytes); });
  EXPECT_LT(std::chrono::steady_clock::now() - begun, std::chrono::milliseconds(200));
}
void expect_refused(const GgufBytes& file, std::initializer_list<std::string_view> parts) {
  expect_bytes_refused(file.file(), parts);
}

std::string array_of(uint32_t element, uint64_t count, std::string_view bytes) {
  return GgufBytes::number(element) + GgufBytes::number(count) + std::string(bytes);
}

TEST(GgufHeader, ReadsEveryTypeOfValue) {
  GgufBytes file;
  file.key("u8", 0, "\xFF").key("i8", 1, "\xFF").key("u16", 2, "\xFF\xFF").key("i16", 3, "\xFE\xFF");
  file.key("u32", GgufValue::u32(4000000000)).key("i32", GgufValue::i32(-5)).key("u64", GgufValue::u64(kHuge));
  file.key("i64", 11, GgufBytes::number(int64_t{-7})).key("f32", GgufValue::f32(0.1f));
  file.key("f64", 12, GgufBytes::number(0.25)).key("bool", GgufValue::boolean(true));
  file.key("string", GgufValue::string("Ġthe")).key("none", GgufValue::string(""));
  file.key("texts", GgufValue::array(GgufArray::of_strings({"a", "", "bc"})));
  file.key("numbers", GgufValue::array(GgufArray::of_i32({1, -2})));
  const GgufMetadata metadata = parse(file.file()).metadata;

  EXPECT_EQ(metadata.at("u8").integer(), 255);
  EXPECT_EQ(metadata.at("i8").integer(), -1);
  EXPECT_EQ(metadata.at("u16").integer(), 65535);
  EXPECT_EQ(metadata.at("i16").integer(), -2);
  EXPECT_EQ(metadata.at("u32").integer(), 4000000000);
  EXPECT_EQ(metadata.at("i32").integer(), -5);
  EXPECT_EQ(metadata.at("u64").integer(), std::nullopt);  // beyond int64
  EXPECT_EQ(metadata.at("i64").integer(), -7);
  EXPECT_EQ(metadata.at("f32").number(), 0.1);  // what the writer had before it was narrowed
  EXPECT_EQ(metadata.at("f64").number(), 0.25);
  EXPECT_EQ(metadata.at("u8").number(), 255.0);
  EXPECT_EQ(metadata.at("bool").boolean(), true);
  EXPECT_EQ(metadata.at("bool").integer(), std::nullopt);
  EXPECT_EQ(*metadata.at("string").text(), "Ġthe");
  EXPECT_EQ(*metadata.at("none").text(), "");
  const GgufArray& texts = *metadata.at("texts").array();
  ASSERT_EQ(texts.count, 3u);
  EXPECT_EQ(texts.text(0), "a");
  EXPECT_EQ(texts.text(1), "");
  EXPECT_EQ(texts.text(2), "bc");
  const GgufArray& numbers = *metadata.at("numbers").array();
  ASSERT_EQ(numbers.count, 2u);
  EXPECT_EQ(numbers.integer(1), -2);
}

TEST(GgufHeader, PlacesTensorsRowMajorInTheFile) {
  GgufBytes file;
  file.key("general.alignment", GgufValue::u32(64));
  file.alignment = 64;
  file.tensor("b", {64, 3}, kQ8_0Tensor, 64).tensor("a", {2, 2, 3}, kF32Tensor, 0);
  file.bytes(std::string(64 + 3 * 2 * 34, 'x'));
  const std::string bytes = file.file();
  const GgufPart part = parse(bytes);
  const uint64_t data_start = bytes.size() - file.data.size();
  ASSERT_EQ(part.tensors.size(), 2u);
  EXPECT_EQ(part.tensors[0].name, "b");
  EXPECT_EQ(part.tensors[0].dtype, DType::kQ8_0);
  EXPECT_THAT(part.tensors[0].shape, ElementsAre(3, 64));
  EXPECT_EQ(part.tensors[0].offset, data_start + 64);
  EXPECT_EQ(part.tensors[0].size_bytes, 3u * 2 * 34);
  EXPECT_THAT(part.tensors[1].shape, ElementsAre(3, 2, 2));
  EXPECT_EQ(part.tensors[1].offset, data_start);
}

TEST(GgufHeader, RefusesWhatIsNoGguf) {
  expect_bytes_refused("", {"end of the file"});
  expect_bytes_refused("GGU", {"magic"});
  expect_refused({.magic = "PK\x03\x04"}, {"not a GGUF file", "\"GGUF\"", "cat"});
  expect_refused({.version = 1}, {"version", "got 1"});
  expect_refused({.version = 4}, {"version", "got 4", "update"});
  expect_refused({.version = 0x03000000}, {"big-endian"});
}

TEST(GgufHeader, TakesNoMemoryForCountsThatOnlyTheFileClaims) {
  expect_refused({.tensor_count = kHuge}, {"number of tensors", "18446744073709551615"});
  expect_refused({.key_count = kHuge}, {"number of metadata keys", "18446744073709551615"});
  expect_refused({.key_count = 2}, {"number of metadata keys"});
  expect_refused(GgufBytes().key("k", kString, GgufBytes::number(kHuge)), {"'k'", "18446744073709551615"});
  expect_refused(GgufBytes().key("k", kArray, array_of(kU32, kHuge, "")), {"'k'", "length of an array"});
  expect_refused(GgufBytes().key("k", kArray, array_of(kU32, (kHuge >> 2) + 2, "")), {"'k'", "length of an array"});
  expect_refused(GgufBytes().key("k", kArray, array_of(kString, kHuge, "")), {"'k'", "length of an array"});
  expect_refused(GgufBytes().key("k", kArray, array_of(kString, 1, GgufBytes::number(kHuge))), {"'k'", "a string"});
  GgufBytes long_key;
  long_key.key_count = 1;
  long_key.body = GgufBytes::number(kHuge) + "abc";
  expect_refused(long_key, {"metadata key", "18446744073709551615"});
}

TEST(GgufHeader, RefusesAHeaderLongerThanAnyModelHas) {
  // A sparse file may claim to be of any size.
  const std::string start = GgufBytes().key("k", kArray, array_of(kU8, uint64_t{1} << 40, "")).file();
  const auto read = [&](std::span<std::byte> out, uint64_t offset) {
    if (offset < start.size()) {
      std::memcpy(out.data(), start.data() + offset, std::min<uint64_t>(out.size(), start.size() - offset));
    }
  };
  expect_error(ErrorKind::kBadFile, {"'k'", "longest header"},
               [&] { parse_gguf(read, uint64_t{1} << 41, "model.gguf"); });
}

TEST(GgufHeader, RefusesBrokenMetadata) {
  const GgufValue one = GgufValue::u32(1);
  expect_refused(GgufBytes().key("k", one).key("k", one), {"'k'", "twice"});
  expect_refused(GgufBytes().key("", one), {"empty metadata key"});
  expect_refused(GgufBytes().key("k", 13, "abcdefgh"), {"'k'", "unknown type", "13"});
  expect_refused(GgufBytes().key("k", kBool, "\x02"), {"'k'", "bool", "2"});
  expect_refused(GgufBytes().key("k", kArray, array_of(kBool, 2, "\x01\x03")), {"'k'", "bool", "3"});
  expect_refused(GgufBytes().key("k", kArray, array_of(kArray, 1, array_of(kU8, 1, "x"))), {"'k'", "array of arrays"});
  expect_refused(GgufBytes().key("k", kArray, array_of(77, 1, "x")), {"'k'", "unknown type", "77"});
  expect_bytes_refused(std::string(GgufBytes().key("a.long.enough.key", kU32, "").file(), 0, 56),
                       {"'a.long.enough.key'", "end of the file"});
}

TEST(GgufHeader, RefusesImpossibleAlignments) {
  for (const uint32_t bad : {0u, 1u, 12u, 33u, 0x80000000u}) {
    expect_refused(GgufBytes().key("general.alignment", GgufValue::u32(bad)),
                   {"general.alignment", "power of two", fmt::format("{}", bad)});
  }
  expect_refused(GgufBytes().key("general.alignment", GgufValue::string("32")), {"general.alignment", "no integer"});
}

TEST(GgufHeader, RefusesBrokenTensors) {
  const auto one = [](const std::vector<uint64_t>& dims, uint32_t type, uint64_t offset) {
    return GgufBytes().tensor("w", dims, type, offset).bytes(std::string(4096, 'x'));
  };
  parse(one({4, 4}, kF32Tensor, 32).file());  // the case that all others spoil
  expect_refused(one({}, kF32Tensor, 0), {"'w'", "dimensions", "got 0"});
  expect_refused(one({1, 1, 1, 1, 1}, kF32Tensor, 0), {"'w'", "dimensions", "got 5"});
  expect_refused(one({0, 4}, kF32Tensor, 0), {"'w'", "multiple of 1"});
  expect_refused(one({4, 0}, kF32Tensor, 0), {"'w'", "impossible shape", "4, 0"});
  expect_refused(one({uint64_t{1} << 32, uint64_t{1} << 32}, kF32Tensor, 0), {"'w'", "impossible shape"});
  expect_refused(one({kHuge}, kF32Tensor, 0), {"'w'", "impossible shape"});
  expect_refused(one({4, kHuge, kHuge, kHuge}, kF32Tensor, 0), {"'w'", "impossible shape"});
  expect_refused(one({33, 4}, kQ8_0Tensor, 0), {"'w'", "multiple of 32 for Q8_0", "33"});
  expect_refused(one({128, 4}, kQ4_KTensor, 0), {"'w'", "multiple of 256 for Q4_K", "128"});
  for (const uint32_t type : {4u, 5u, 9u, 15u, 31u, 36u, 38u, 97u, 202u, 0xFFFFFFFFu}) {
    expect_refused(one({256, 1}, type, 0), {"'w'", fmt::format("type number {}", type)});
  }
  expect_refused(one({4, 4}, kF32Tensor, 33), {"'w'", "not aligned", "multiple of 32"});
  expect_refused(one({4, 4}, kF32Tensor, 4096), {"'w'", "beyond the end", "download"});
  expect_refused(one({4, 4}, kF32Tensor, kHuge - 31), {"'w'", "beyond the end"});
  expect_refused(one({1024, 2}, kF32Tensor, 0), {"'w'", "beyond the end"});
  expect_refused(GgufBytes().tensor("", {4}, kF32Tensor, 0).bytes("0123456789abcdef"), {"without a name"});
  expect_refused(GgufBytes().tensor(std::string(300, 'n'), {4}, kF32Tensor, 0), {"name is too long", "255"});
}

TEST(GgufHeader, RefusesTensorsInEachOthersWay) {
  const std::string data(256, 'x');
  expect_refused(GgufBytes().tensor("w", {16}, kF32Tensor, 0).tensor("w", {16}, kF32Tensor, 64).bytes(data),
                 {"'w'", "same name"});
  expect_refused(GgufBytes().tensor("b", {16}, kF32Tensor, 32).tensor("a", {16}, kF32Tensor, 0).bytes(data),
                 {"'b'", "overlap", "bytes of a"});
}

TEST(GgufHeader, RefusesEveryTruncation) {
  GgufBytes file;
  file.key("text", GgufValue::string("value")).key("list", GgufValue::array(GgufArray::of_strings({"a", "bc"})));
  file.tensor("w", {8}, kF32Tensor, 0).bytes(std::string(32, 'x'));
  const std::string bytes = file.file();
  for (size_t n_bytes = 0; n_bytes < bytes.size(); ++n_bytes) {
    expect_error(ErrorKind::kBadFile, {"model.gguf"}, [&] { parse(bytes.substr(0, n_bytes)); });
  }
  EXPECT_EQ(parse(bytes).tensors.size(), 1u);
}

}  // namespace
}  // namespace moraine::quant
