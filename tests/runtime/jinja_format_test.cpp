#include "runtime/jinja_format.h"

#include <gtest/gtest.h>

#include <limits>

#include "support/jinja_render.h"

namespace moraine::runtime::jinja {
namespace {

using testing::jinja_error;
using testing::jinja_string;

/// Values as Python 3.11's repr() prints them.
TEST(JinjaFormat, PrintsFloatsAsPython) {
  const std::pair<double, const char*> kCases[] = {
      {0.0, "0.0"},           {-0.0, "-0.0"},
      {1.0, "1.0"},           {-1.5, "-1.5"},
      {0.1, "0.1"},           {1.0 / 3, "0.3333333333333333"},
      {100000.0, "100000.0"}, {1e15, "1000000000000000.0"},
      {1e16, "1e+16"},        {1.5e300, "1.5e+300"},
      {1e-4, "0.0001"},       {1.25e-5, "1.25e-05"},
      {5e-324, "5e-324"},     {123456.789, "123456.789"},
  };
  for (const auto& [value, expected] : kCases) EXPECT_EQ(format_float(value), expected);
  EXPECT_EQ(format_float(std::numeric_limits<double>::infinity()), "inf");
  EXPECT_EQ(format_float(std::numeric_limits<double>::quiet_NaN()), "nan");
}

/// Checked with Jinja2 3.1.6.
TEST(JinjaFormat, PrintsContainersAsPython) {
  EXPECT_EQ(jinja_string("{{ [1, 'a', none, true, 1.0, (2,), (), {'k': [undef]}] }}"),
            "[1, 'a', None, True, 1.0, (2,), (), {'k': [Undefined]}]");
  EXPECT_EQ(jinja_string(R"({{ ["it's", 'a"b', 'it\'s "x"', '\\'] }})"), R"(["it's", 'a"b', 'it\'s "x"', '\\'])");
  EXPECT_EQ(jinja_string(R"({{ ['\t\r\n\x00\x85\u2028é｜😀\u200b'] }})"), R"(['\t\r\n\x00\x85\u2028é｜😀\u200b'])");
  EXPECT_EQ(jinja_error("{{ namespace() }}"), "1: a Namespace can't be printed");
  EXPECT_EQ(jinja_error("{{ range }}"), "1: a function can't be printed");
}

constexpr const char* kContext =
    R"({"d": {"b": 1, "a": [1, 2.0, null, true, "x<&>'\"\\\n\u0001｜"], "e": [], "f": {}}, "s": "｜😀"})";

/// Checked with the tojson of transformers.
TEST(JinjaFormat, WritesJsonAsTransformers) {
  EXPECT_EQ(jinja_string("{{ d|tojson }}", kContext),
            R"({"b": 1, "a": [1, 2.0, null, true, "x<&>'\"\\\n\u0001｜"], "e": [], "f": {}})");
  EXPECT_EQ(jinja_string("{{ {'a': [1, {'b': none}], 'e': [], 'f': {}}|tojson(indent=2) }}"),
            "{\n  \"a\": [\n    1,\n    {\n      \"b\": null\n    }\n  ],\n  \"e\": [],\n  \"f\": {}\n}");
  EXPECT_EQ(jinja_string("{{ s|tojson(ensure_ascii=true) }}", kContext), R"("\uff5c\ud83d\ude00")");
  EXPECT_EQ(jinja_string("{{ '\\x7f'|tojson(ensure_ascii=true) }}"), R"("\u007f")");
  EXPECT_EQ(jinja_string("{{ {'b': 1, 'a': 2}|tojson(sort_keys=true, separators=(',', ':')) }}"), R"({"a":2,"b":1})");
  EXPECT_EQ(jinja_string("{{ {1: 2, none: 3, true: 4, 1.5: 6}|tojson }}"), R"({"1": 4, "null": 3, "1.5": 6})");
  EXPECT_EQ(jinja_string("{{ (1, 2)|tojson }}"), "[1, 2]");
  EXPECT_EQ(jinja_string("{{ 1e999|tojson }}"), "Infinity");
  EXPECT_EQ(jinja_error("{{ range|tojson }}"), "1: Object of type function is not JSON serializable");
  EXPECT_EQ(jinja_error("{{ [1]|map('string')|tojson }}"), "1: Object of type generator is not JSON serializable");
  EXPECT_EQ(jinja_error("{{ nothing|tojson }}"), "1: 'nothing' is undefined");
}

TEST(JinjaFormat, SharedContainersCannotExplode) {
  std::string source = "{% set a = [1, 1] %}";
  for (int i = 0; i < 60; ++i) source += "{% set a = [a, a] %}";  // 2^61 leaves
  const std::string steps = "1: the template runs too long (step limit)";
  EXPECT_EQ(jinja_error(source + "{{ a|tojson }}"), steps);
  EXPECT_EQ(jinja_error(source + "{{ a }}"), steps);
  EXPECT_EQ(jinja_error(source + "{% set b = [a] %}{{ b == [a, a][:1] }}"), steps);
  EXPECT_EQ(jinja_error("{{ [1]|tojson(indent=1000000000000) }}"), "no error");  // clamped, still in bounds
}

}  // namespace
}  // namespace moraine::runtime::jinja
