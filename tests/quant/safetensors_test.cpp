#include "quant/safetensors.h"

#include <gtest/gtest.h>

#include "support/expect_error.h"
#include "support/safetensors_text.h"
#include "support/temp_dir.h"

namespace moraine::quant {
namespace {

using testing::entry;
using testing::expect_error;
using testing::safetensors_file;
using testing::TempDir;

std::vector<TensorInfo> parse(std::string_view header, uint64_t data_bytes) {
  const uint64_t data_start = 8 + header.size();
  return parse_safetensors_header(header, data_start, data_start + data_bytes, "dir/m.safetensors");
}

void expect_refused(std::string_view header, uint64_t data_bytes, std::initializer_list<std::string_view> parts) {
  SCOPED_TRACE(printable(header, 300));
  expect_error(ErrorKind::kBadFile, {"dir/m.safetensors: "}, [&] { parse(header, data_bytes); });
  expect_error(ErrorKind::kBadFile, parts, [&] { parse(header, data_bytes); });
}

/// A header with one U8 tensor "w" whose three fields are these JSON texts.
std::string fields(std::string_view dtype, std::string_view shape, std::string_view data_offsets) {
  return fmt::format(R"({{"w":{{"dtype":{},"shape":{},"data_offsets":{}}}}})", dtype, shape, data_offsets);
}

// ---- what is valid -------------------------------------------------------------------------------------------------

TEST(SafetensorsHeader, ReadsTensorsSortedByOffset) {
  const std::string header = '{' + entry("b", "F32", "2,3", 6, 30) + ",\n " + entry("a", "BF16", "3", 0, 6) + "}";
  const auto tensors = parse(header, 30);
  ASSERT_EQ(tensors.size(), 2u);
  EXPECT_EQ(tensors[0].name, "a");
  EXPECT_EQ(tensors[0].dtype, DType::kBF16);
  EXPECT_EQ(tensors[0].shape, std::vector<int64_t>{3});
  EXPECT_EQ(tensors[0].offset, 8 + header.size());
  EXPECT_EQ(tensors[0].size_bytes, 6u);
  EXPECT_EQ(tensors[0].file, 0);
  EXPECT_EQ(tensors[1].name, "b");
  EXPECT_EQ(tensors[1].shape, (std::vector<int64_t>{2, 3}));
  EXPECT_EQ(tensors[1].offset, 8 + header.size() + 6);
  EXPECT_EQ(tensors[1].size_bytes, 24u);
}

TEST(SafetensorsHeader, FieldsMayComeInAnyOrder) {
  const auto tensors = parse(R"({"w":{"data_offsets":[0,4],"shape":[4],"dtype":"I8"}})", 4);
  ASSERT_EQ(tensors.size(), 1u);
  EXPECT_EQ(tensors[0].dtype, DType::kI8);
}

TEST(SafetensorsHeader, ScalarsAndEmptyTensors) {
  // Empty tensors may stand at the start, between others and at the end.
  const auto tensors = parse('{' + entry("e2", "F32", "5,0", 8, 8) + "," + entry("s", "F64", "", 0, 8) + "," +
                                 entry("e1", "F32", "0", 0, 0) + "," + entry("t", "U8", "1", 8, 9) + "," +
                                 entry("e3", "F32", "0", 9, 9) + "}",
                             9);
  ASSERT_EQ(tensors.size(), 5u);
  EXPECT_EQ(tensors[0].name, "e1");
  EXPECT_EQ(tensors[1].name, "s");
  EXPECT_TRUE(tensors[1].shape.empty());
  EXPECT_EQ(tensors[1].size_bytes, 8u);
  EXPECT_EQ(tensors[4].name, "e3");
}

TEST(SafetensorsHeader, MetadataAreNoTensor) {
  EXPECT_EQ(parse(R"({"__metadata__":{"format":"pt","a":"b"},)" + entry("w", "U8", "1", 0, 1) + "}", 1).size(), 1u);
  EXPECT_EQ(parse(R"({"__metadata__":{}})", 0).size(), 0u);
}

TEST(SafetensorsHeader, SpacesMayPadIt) {
  EXPECT_EQ(parse('{' + entry("w", "U8", "1", 0, 1) + "}    ", 1).size(), 1u);
}

TEST(SafetensorsHeader, NoTensorsNoData) {
  EXPECT_TRUE(parse("{}", 0).empty());
  expect_refused("{}", 1, {"behind the last tensor", "expected a file of 10 bytes", "got 11 bytes"});
}

TEST(SafetensorsHeader, SubByteTypesCountBits) {
  EXPECT_EQ(parse('{' + entry("w", "F4", "2,3", 0, 3) + "}", 3)[0].size_bytes, 3u);
  EXPECT_EQ(parse('{' + entry("w", "F6_E2M3", "4", 0, 3) + "}", 3)[0].size_bytes, 3u);
  expect_refused('{' + entry("w", "F4", "3", 0, 2) + "}", 2, {"'w'", "no number of bytes"});
  expect_refused('{' + entry("w", "F6_E3M2", "2", 0, 2) + "}", 2, {"'w'", "no number of bytes"});
}

// ---- §3.1 length of the file and of the header ---------------------------------------------------------------------

TEST(SafetensorsFile, ReadsAWholeFile) {
  const TempDir dir;
  const auto file = dir.write("m.safetensors", safetensors_file('{' + entry("w", "U8", "3", 0, 3) + "}", "abc"));
  EXPECT_EQ(read_safetensors_header(file).at(0).size_bytes, 3u);
  // The smallest file there is.
  EXPECT_TRUE(read_safetensors_header(dir.write("e.safetensors", safetensors_file("{}"))).empty());
}

TEST(SafetensorsFile, ShorterThanEightBytes) {
  const TempDir dir;
  for (const char* bytes : {"", "1234567"}) {
    const auto file = dir.write("m.safetensors", bytes);
    expect_error(ErrorKind::kBadFile, {"m.safetensors", "too short", "at least 8 bytes", "download it again"},
                 [&] { read_safetensors_header(file); });
  }
}

TEST(SafetensorsFile, HeaderLengthIsCheckedBeforeAnythingIsAllocated) {
  const TempDir dir;
  const struct {
    uint64_t header_bytes;
    const char* message;
  } cases[] = {{0, "impossible header length"},
               {100'000'001, "impossible header length"},
               {UINT64_MAX, "impossible header length"},
               {UINT64_MAX - 7, "impossible header length"},
               {uint64_t{1} << 63, "impossible header length"},
               {100'000'000, "truncated inside its header"},
               {3, "truncated inside its header"}};
  for (const auto& c : cases) {
    std::string bytes(10, ' ');
    std::memcpy(bytes.data(), &c.header_bytes, 8);
    const auto file = dir.write("m.safetensors", bytes);
    expect_error(ErrorKind::kBadFile, {"m.safetensors", c.message}, [&] { read_safetensors_header(file); });
  }
}

TEST(SafetensorsFile, MissingFile) {
  expect_error(ErrorKind::kBadFile, {"/nowhere/m.safetensors", "no such file"},
               [] { read_safetensors_header("/nowhere/m.safetensors"); });
}

TEST(SafetensorsFile, GitLfsPointer) {
  const TempDir dir;
  const auto file =
      dir.write("m.safetensors", "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 4302317480\n");
  expect_error(ErrorKind::kBadFile, {"m.safetensors", "Git-LFS pointer", "git lfs pull"},
               [&] { read_safetensors_header(file); });
}

TEST(SafetensorsFile, TruncatedAnywhere) {
  const TempDir dir;
  const std::string whole = safetensors_file('{' + entry("w", "F32", "4", 0, 16) + "}", "0123456789abcdef");
  for (size_t kept = 0; kept < whole.size(); ++kept) {
    const auto file = dir.write("m.safetensors", std::string_view(whole).substr(0, kept));
    expect_error(ErrorKind::kBadFile, {"m.safetensors", "download it again"}, [&] { read_safetensors_header(file); });
  }
  const auto file = dir.write("m.safetensors", std::string_view(whole).substr(0, whole.size() - 1));
  expect_error(ErrorKind::kBadFile,
               {"truncated", fmt::format("expected a file of {} bytes", whole.size()),
                fmt::format("got {} bytes", whole.size() - 1), "the download is incomplete: download it again"},
               [&] { read_safetensors_header(file); });
}

TEST(SafetensorsHeader, MustBeginWithABrace) {
  for (const char* header : {"", " {}", "[]", "\xef\xbb\xbf{}", "\n{}", "\"w\""}) {
    expect_refused(header, 0, {"does not begin with '{'", "at byte 8"});
  }
}

// ---- §3.2 JSON -----------------------------------------------------------------------------------------------------

TEST(SafetensorsHeader, NotJson) {
  expect_refused(R"({"w":})", 0, {"not valid JSON", "at byte 13"});
  expect_refused(R"({w:1})", 0, {"not valid JSON", "at byte 9"});
  expect_refused("{\"w\xff\":1}", 0, {"not valid JSON", "UTF-8"});
}

TEST(SafetensorsHeader, OnlySpacesMayFollow) {
  expect_refused("{}\n", 0, {"does not end with '}' and spaces", "at byte 10"});
  expect_refused("{} \t", 0, {"does not end with"});
  expect_refused(std::string_view("{}\0", 3), 0, {"does not end with"});
  expect_refused("{}{}", 0, {"not valid JSON"});
  expect_refused("{} }", 0, {"not valid JSON"});
  expect_refused(std::string_view("{}\0}", 4), 0, {"NUL"});
}

TEST(SafetensorsHeader, NestedDeeperThanTheFormat) {
  expect_refused(fields(R"("U8")", "[[1]]", "[0,1]"), 1, {"nested too deeply", "at most 3 levels"});
  expect_refused(R"({"__metadata__":{"a":{"b":{}}}})", 0, {"metadata value has the wrong type"});
  expect_refused('{' + std::string(R"("w":{"x":)") + std::string(100'000, '[') + "}", 0, {"'w'"});
}

// ---- §3.3 duplicates -----------------------------------------------------------------------------------------------

TEST(SafetensorsHeader, SameTensorTwice) {
  const std::string header = '{' + entry("w", "U8", "1", 0, 1) + "," + entry("w", "U8", "1", 1, 2) + "}";
  expect_refused(header, 2, {"'w'", "twice", fmt::format("at byte {}", 8 + header.rfind("\"w\""))});
  expect_refused('{' + entry("w", "U8", "1", 0, 1) + "," + entry("\\u0077", "U8", "1", 1, 2) + "}", 2,
                 {"'w'", "twice"});
}

TEST(SafetensorsHeader, SameFieldTwice) {
  expect_refused(R"({"w":{"dtype":"U8","dtype":"U8","shape":[1],"data_offsets":[0,1]}})", 1, {"'dtype'", "twice"});
  expect_refused(R"({"w":{"dtype":"U8","shape":[1],"shape":[1],"data_offsets":[0,1]}})", 1, {"'shape'", "twice"});
  expect_refused(R"({"w":{"dtype":"U8","shape":[1],"data_offsets":[0,1],"data_offsets":[0,1]}})", 1,
                 {"'data_offsets'", "twice"});
}

TEST(SafetensorsHeader, MetadataTwice) {
  expect_refused(R"({"__metadata__":{},"__metadata__":{}})", 0, {"'__metadata__'", "twice"});
  expect_refused(R"({"__metadata__":{"a":"1","a":"1"}})", 0, {"'a'", "twice"});
}

// ---- §3.4 metadata -------------------------------------------------------------------------------------------------

TEST(SafetensorsHeader, MetadataMustBeAnObjectOfStrings) {
  for (const char* value : {"null", "\"pt\"", "[]", "1"}) {
    expect_refused(fmt::format(R"({{"__metadata__":{}}})", value), 0,
                   {"'__metadata__'", "metadata have the wrong type", "an object of strings"});
  }
  for (const char* value : {"null", "1", "true", "[]", "{}"}) {
    expect_refused(fmt::format(R"({{"__metadata__":{{"a":{}}}}})", value), 0,
                   {"'__metadata__'", "metadata value has the wrong type", "expected a string"});
  }
}

// ---- §3.5 fields ---------------------------------------------------------------------------------------------------

TEST(SafetensorsHeader, FieldsMissing) {
  expect_refused(R"({"w":{"shape":[1],"data_offsets":[0,1]}})", 1, {"'w'", "no dtype"});
  expect_refused(R"({"w":{"dtype":"U8","data_offsets":[0,1]}})", 1, {"'w'", "no shape"});
  expect_refused(R"({"w":{"dtype":"U8","shape":[1]}})", 1, {"'w'", "no data_offsets"});
  expect_refused(R"({"w":{}})", 0, {"'w'", "no dtype"});
  // A field of the tensor before does not count.
  const std::string before = '{' + entry("v", "U8", "1", 0, 1);
  expect_refused(before + R"(,"w":{"dtype":"U8","shape":[0]}})", 1, {"'w'", "no data_offsets"});
  expect_refused(before + R"(,"w":{"dtype":"U8","data_offsets":[1,2]}})", 2, {"'w'", "no shape"});
  expect_refused(before + R"(,"w":{"shape":[1],"data_offsets":[1,2]}})", 2, {"'w'", "no dtype"});
}

TEST(SafetensorsHeader, UnknownField) {
  expect_refused(R"({"w":{"dtype":"U8","shape":[1],"data_offsets":[0,1],"strides":[1]}})", 1,
                 {"'w'", "unknown field", "\"strides\""});
}

TEST(SafetensorsHeader, WrongTypes) {
  for (const char* value : {"null", "1", "\"U8\"", "[]", "true"}) {
    expect_refused(fmt::format(R"({{"w":{}}})", value), 0, {"'w'", "entry has the wrong type", "an object"});
  }
  for (const char* value : {"null", "1", "[]", "{}"}) {
    expect_refused(fields(value, "[1]", "[0,1]"), 1, {"'w'", "dtype has the wrong type", "a string"});
  }
  for (const char* value : {"null", "1", "\"1\"", "{}"}) {
    expect_refused(fields(R"("U8")", value, "[0,1]"), 1, {"'w'", "shape has the wrong type"});
    expect_refused(fields(R"("U8")", "[1]", value), 1, {"'w'", "data_offsets has the wrong type"});
  }
}

TEST(SafetensorsHeader, UnknownDtype) {
  // The last two are block formats, which only a pack's files hold.
  for (const char* dtype : {"F31", "f32", "", "Q8_0", "Q4_K"}) {
    expect_refused(fields('"' + std::string(dtype) + '"', "[1]", "[0,1]"), 1,
                   {"'w'", "unknown dtype", fmt::format("got \"{}\"", dtype), "at byte 22"});
  }
}

// ---- block formats, in a pack alone ---------------------------------------------------------------------------------

std::vector<TensorInfo> parse_pack(std::string_view header, uint64_t data_bytes) {
  const uint64_t data_start = 8 + header.size();
  return parse_safetensors_header(header, data_start, data_start + data_bytes, "dir/m.safetensors",
                                  BlockFormats::kAllowed);
}

TEST(SafetensorsHeader, APacksFileMayHoldBlockFormats) {
  const auto tensors =
      parse_pack('{' + entry("q8", "Q8_0", "3,64", 0, 204) + "," + entry("q4", "Q4_0", "2,32", 204, 240) + "," +
                     entry("k", "Q4_K", "1,512", 240, 528) + "," + entry("none", "Q8_0", "5,0", 528, 528) + "," +
                     entry("plain", "BF16", "3", 528, 534) + "}",
                 534);
  ASSERT_EQ(tensors.size(), 5u);
  EXPECT_EQ(tensors[0].dtype, DType::kQ8_0);
  EXPECT_EQ(tensors[0].size_bytes, 3u * 2 * 34);
  EXPECT_EQ(tensors[1].size_bytes, 2u * 18);
  EXPECT_EQ(tensors[2].size_bytes, 2u * 144);
}

TEST(SafetensorsHeader, BlocksMustBeWholeAndOfTheRightSize) {
  const auto refused = [](const std::string& header, uint64_t data_bytes,
                          std::initializer_list<std::string_view> parts) {
    SCOPED_TRACE(header);
    expect_error(ErrorKind::kBadFile, parts, [&] { parse_pack(header, data_bytes); });
  };
  // 64 elements would be two blocks, but they are no whole number per row.
  refused('{' + entry("w", "Q8_0", "4,16", 0, 68) + "}", 68,
          {"'w'", "whole number of blocks", "multiple of 32", "[4, 16]"});
  refused('{' + entry("w", "Q4_K", "8,32", 0, 144) + "}", 144, {"'w'", "multiple of 256"});
  refused('{' + entry("w", "Q8_0", "", 0, 34) + "}", 34, {"'w'", "whole number of blocks"});
  refused('{' + entry("w", "Q8_0", "2,32", 0, 64) + "}", 64, {"'w'", "do not match", "68 bytes", "64 bytes"});
  refused('{' + entry("w", "Q8_0", "4611686018427387904,32", 0, 0) + "}", 0, {"'w'", "fits 64 bits"});
  refused('{' + entry("w", "Q9_9", "2,32", 0, 64) + "}", 64, {"'w'", "unknown dtype"});
}

TEST(SafetensorsHeader, NumbersMustBeUnsignedIntegers) {
  for (const char* number :
       {"-1", "-0", "1.0", "1e0", "1E+0", "9223372036854775808", "18446744073709551616", "\"1\"", "null", "true"}) {
    const std::string text = number;
    const std::string got = text[0] == '"' ? text : "got ";
    expect_refused(fields(R"("U8")", "[" + text + "]", "[0,1]"), 1,
                   {"'w'", "shape has a wrong value", "unsigned integer below 2^63", got, "at byte 36"});
    expect_refused(fields(R"("U8")", "[1]", "[" + text + ",1]"), 1,
                   {"'w'", "data_offsets has a wrong value", "unsigned integer below 2^63", got});
    expect_refused(fields(R"("U8")", "[1]", "[0," + text + "]"), 1, {"'w'", "data_offsets has a wrong value"});
  }
  // The largest number is valid as a number; here it is the size that is wrong.
  expect_refused(fields(R"("U8")", "[1]", "[0,9223372036854775807]"), 1, {"do not match data_offsets"});
}

TEST(SafetensorsHeader, DataOffsetsAreExactlyTwo) {
  expect_refused(fields(R"("U8")", "[1]", "[]"), 1, {"'w'", "too few numbers", "expected two, got 0"});
  expect_refused(fields(R"("U8")", "[1]", "[0]"), 1, {"'w'", "too few numbers", "expected two, got 1"});
  expect_refused(fields(R"("U8")", "[1]", "[0,1,1]"), 1, {"'w'", "too many numbers"});
}

// ---- §3.6 overflow -------------------------------------------------------------------------------------------------

TEST(SafetensorsHeader, ProductsThatOverflow) {
  // 2^32 × 2^32 elements are 2^64: wrapped to 0 they would fit an empty range.
  expect_refused('{' + entry("w", "U8", "4294967296,4294967296", 0, 0) + "}", 0, {"'w'", "fits 64 bits"});
  // 2^60 elements fit, their 2^66 bits do not.
  expect_refused('{' + entry("w", "I64", "1152921504606846976", 0, 0) + "}", 0, {"'w'", "fits 64 bits"});
  expect_refused('{' + entry("w", "U8", "9223372036854775807,3", 0, 1) + "}", 1, {"'w'", "fits 64 bits"});
}

// ---- §3.7 size of a tensor -----------------------------------------------------------------------------------------

TEST(SafetensorsHeader, BeginBehindEnd) {
  expect_refused('{' + entry("w", "U8", "1", 1, 0) + "}", 1, {"'w'", "end before they begin", "[1, 0]", "at byte 9"});
}

TEST(SafetensorsHeader, SizeDoesNotMatchDtypeAndShape) {
  expect_refused('{' + entry("w", "F32", "2,3", 0, 23) + "}", 23, {"'w'", "24 bytes for F32 [2, 3]", "got 23 bytes"});
  expect_refused('{' + entry("w", "F32", "0", 0, 4) + "}", 4, {"'w'", "0 bytes for F32 [0]"});
  expect_refused('{' + entry("w", "F32", "", 0, 0) + "}", 0, {"'w'", "4 bytes for F32 []", "got 0 bytes"});
}

// ---- §3.8 layout of all --------------------------------------------------------------------------------------------

TEST(SafetensorsHeader, Holes) {
  expect_refused('{' + entry("w", "U8", "2", 1, 3) + "}", 3, {"'w'", "hole", "begin at 0", "got 1"});
  expect_refused('{' + entry("a", "U8", "2", 0, 2) + "," + entry("b", "U8", "2", 3, 5) + "}", 5,
                 {"'b'", "hole", "begin at 2", "got 3"});
}

TEST(SafetensorsHeader, Overlaps) {
  expect_refused('{' + entry("a", "U8", "2", 0, 2) + "," + entry("b", "U8", "2", 1, 3) + "}", 3, {"'b'", "overlap"});
  expect_refused('{' + entry("a", "U8", "2", 0, 2) + "," + entry("b", "U8", "2", 0, 2) + "}", 2, {"'b'", "overlap"});
  expect_refused('{' + entry("a", "U8", "3", 0, 3) + "," + entry("e", "U8", "0", 1, 1) + "}", 3, {"'e'", "overlap"});
}

TEST(SafetensorsHeader, EndIsNotTheFilesEnd) {
  const std::string header = '{' + entry("w", "U8", "4", 0, 4) + "}";
  expect_refused(header, 3, {"truncated", "download it again"});
  expect_refused(header, 5, {"behind the last tensor"});
  EXPECT_NO_THROW(parse(header, 4));
}

// ---- §3.9 names ----------------------------------------------------------------------------------------------------

TEST(SafetensorsHeader, NamesAreLimited) {
  EXPECT_NO_THROW(parse('{' + entry(std::string(512, 'n'), "U8", "1", 0, 1) + "}", 1));
  expect_refused('{' + entry(std::string(513, 'n'), "U8", "1", 0, 1) + "}", 1,
                 {"name is too long", "at most 512 bytes", "513 bytes"});
  expect_refused('{' + entry("a\\u0000b", "U8", "1", 0, 1) + "}", 1, {"'a\\x00b'", "NUL"});
}

TEST(SafetensorsHeader, NamesAreEscapedInMessages) {
  expect_refused('{' + entry("a\\n\\u001b[2J", "U8", "1", 0, 2) + "}", 2, {"'a\\x0a\\x1b[2J'"});
}

}  // namespace
}  // namespace moraine::quant
