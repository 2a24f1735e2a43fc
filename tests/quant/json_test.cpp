#include "quant/json.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <chrono>
#include <string>
#include <vector>

#include "support/expect_error.h"
#include "support/temp_dir.h"

namespace moraine::quant {
namespace {

using testing::expect_error;
using testing::TempDir;

void expect_refused(std::string_view text, std::initializer_list<std::string_view> parts, JsonLimits limits = {}) {
  SCOPED_TRACE(printable(text));
  expect_error(ErrorKind::kBadFile, parts, [&] { parse_json(text, "dir/x.json", limits); });
}

std::string nested(int depth) {
  return std::string(static_cast<size_t>(depth), '[') + std::string(static_cast<size_t>(depth), ']');
}

TEST(ParseJson, ReadsEveryKindOfValue) {
  const Json json = parse_json(
      R"( {"a": [1, -2, 2.5, 1e3], "b": {"c": null, "d": true}, "e": "ä\u00e4\n🙂", "f": {}} )", "x.json");
  EXPECT_TRUE(json["a"][0].is_number_unsigned());
  EXPECT_EQ(json["a"][0].get<int>(), 1);
  EXPECT_TRUE(json["a"][1].is_number_integer());
  EXPECT_EQ(json["a"][1].get<int>(), -2);
  EXPECT_EQ(json["a"][2].get<double>(), 2.5);
  EXPECT_TRUE(json["a"][3].is_number_float());
  EXPECT_TRUE(json["b"]["c"].is_null());
  EXPECT_EQ(json["b"]["d"].get<bool>(), true);
  EXPECT_EQ(json["e"].get<std::string>(), "ää\n🙂");
  EXPECT_TRUE(json["f"].is_object());
  EXPECT_EQ(parse_json("18446744073709551615", "x").get<uint64_t>(), UINT64_MAX);
}

TEST(ParseJson, KeepsTheOrderOfKeys) {
  const Json json = parse_json(R"({"z": 1, "a": 2, "m": 3})", "x.json");
  std::vector<std::string> keys;
  for (const auto& [key, value] : json.items()) keys.push_back(key);
  EXPECT_EQ(keys, (std::vector<std::string>{"z", "a", "m"}));
}

TEST(ParseJson, AgreesWithTheLibrary) {
  const char* text = R"({"a":[[],[{}],[1,[2,{"b":[3]}]]],"c":{"d":{"e":"f"},"g":[{"h":1},{"h":2}]},"i":-0.5})";
  EXPECT_EQ(parse_json(text, "x.json"), Json::parse(text));
}

TEST(ParseJson, NamesFileAndByteOfASyntaxError) {
  expect_refused(R"({"a": 1,, "b": 2})", {"dir/x.json: ", "not valid JSON", "syntax error", "at byte 8"});
  expect_refused(R"({"a": 1)", {"at byte 7", "unexpected end of input"});
  expect_refused("", {"at byte 0"});
  expect_refused("nul", {"not valid JSON"});
  expect_refused("[1] // note", {"not valid JSON"});
  expect_refused("[1,]", {"at byte 3"});
  expect_refused("[NaN]", {"not valid JSON"});
  expect_refused("[1e999]", {"not valid JSON"});
}

TEST(ParseJson, NothingMayFollowTheValue) {
  EXPECT_EQ(parse_json("[1] \n\t\r ", "x").size(), 1u);
  expect_refused("{} {}", {"at byte 3"});
  expect_refused("1 2", {"not valid JSON"});
}

TEST(ParseJson, ANulByteIsNoEnd) {
  expect_refused(std::string_view("{}\0{}", 5), {"NUL", "at byte 2"});
  expect_refused(std::string_view("[\"a\0b\"]", 7), {"NUL", "at byte 3"});
}

TEST(ParseJson, RefusesInvalidUtf8) {
  expect_refused("[\"ab\xff\"]", {"at byte 4", "UTF-8"});
  expect_refused("[\"\xc0\xaf\"]", {"UTF-8"});
  expect_refused("[\"\xed\xa0\x80\"]", {"UTF-8"});  // a surrogate
  expect_refused(R"(["\ud800"])", {"not valid JSON"});
}

TEST(ParseJson, RefusesAKeyThatStandsTwice) {
  expect_refused(R"({"a": 1, "b": {"c": 1}, "a": 2})", {"'a'", "twice", "at byte 24"});
  expect_refused(R"([{"x": {"k": 1,
 "k": 1}}])",
                 {"'k'", "twice", "at byte 17"});
  expect_refused(R"({"a": 1, "\u0061": 2})", {"'a'", "twice"});
  // The same key in different objects is no duplicate.
  EXPECT_EQ(parse_json(R"({"a": {"a": [{"a": 1}, {"a": 2}]}, "b": {"a": 0}})", "x").size(), 2u);
}

TEST(ParseJson, RefusesDepthBeyondTheLimit) {
  EXPECT_NO_THROW(parse_json(nested(32), "x"));
  expect_refused(nested(33), {"nested too deeply", "at byte 32", "at most 32 levels"});
  expect_refused(nested(1'000'000), {"nested too deeply"});
  expect_refused(R"({"a": {"b": 1}})", {"nested too deeply", "at byte 6"}, {.max_depth = 1});
  // Depth is how many are open at once, not how many there are.
  EXPECT_EQ(parse_json("[[],[],[],[]]", "x", {.max_depth = 2}).size(), 4u);
}

TEST(ParseJson, RefusesTextBeyondTheLimit) {
  EXPECT_NO_THROW(parse_json("[1,2,3]", "x", {.max_bytes = 7}));
  expect_refused("[1,2,3]", {"too long", "at most 6 bytes", "7 bytes"}, {.max_bytes = 6});
}

TEST(ParseJson, AVocabularyTakesLinearTime) {
  // About the size of DeepSeek's tokenizer.json. Linear takes 0.2 s; a search per key would compare eight billion
  // pairs, so the generous bound still tells them apart on a busy machine.
  std::string text = R"({"vocab": {)";
  for (int i = 0; i < 130'000; ++i) text += fmt::format(R"({}"token number {:06}": {})", i == 0 ? "" : ",", i, i);
  text += R"(}, "merges": ["a b")";
  for (int i = 0; i < 130'000; ++i) text += fmt::format(R"(, "left{} right{}")", i, i);
  text += "]}";
  const auto start = std::chrono::steady_clock::now();
  const Json json = parse_json(text, "tokenizer.json");
  const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - start;
  EXPECT_EQ(json["vocab"].size(), 130'000u);
  EXPECT_LT(elapsed.count(), 10.0);
}

TEST(ReadJson, ReadsAFile) {
  const TempDir dir;
  EXPECT_EQ(read_json(dir.write("a.json", "{\"k\": [1]}\n"))["k"][0].get<int>(), 1);
}

TEST(ReadJson, SaysWhatIsWrongWithTheFile) {
  const TempDir dir;
  expect_error(ErrorKind::kBadFile, {"missing.json", "no such file"}, [&] { read_json(dir / "missing.json"); });
  expect_error(ErrorKind::kBadFile, {"not a regular file"}, [&] { read_json(dir.path()); });
  const auto large = dir.write("large.json", "[1,2,3]");
  expect_error(ErrorKind::kBadFile, {"large.json", "too large", "at most 6 bytes", "7 bytes"},
               [&] { read_json(large, {.max_bytes = 6}); });
  const auto pointer = dir.write("p.json", "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n");
  expect_error(ErrorKind::kBadFile, {"p.json", "Git-LFS pointer", "git lfs pull"}, [&] { read_json(pointer); });
}

TEST(ReadText, ReturnsTheBytes) {
  const TempDir dir;
  const std::string bytes("a\0b\xff\n", 5);
  EXPECT_EQ(read_text(dir.write("t", bytes), 5), bytes);
  EXPECT_EQ(read_text(dir.write("e", ""), 0), "");
}

}  // namespace
}  // namespace moraine::quant
