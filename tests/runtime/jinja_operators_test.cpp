#include "runtime/jinja_operators.h"

#include <gtest/gtest.h>

#include "support/jinja_render.h"

namespace moraine::runtime::jinja {
namespace {

using testing::jinja_value;
using testing::jinja_value_error;

/// All values here are checked with Jinja2 3.1.6.
TEST(JinjaOperators, CalculateAsPython) {
  const std::pair<const char*, const char*> kCases[] = {
      {"7 // 2", "3"},
      {"-7 // 2", "-4"},
      {"7 % -3", "-2"},
      {"-7 % 3", "2"},
      {"7.5 // 2", "3.0"},
      {"-7.5 % 2", "0.5"},
      {"2 ** 10", "1024"},
      {"2 ** -1", "0.5"},
      {"7 / 2", "3.5"},
      {"6 / 2", "3.0"},
      {"true + 1", "2"},
      {"-true", "-1"},
      {"'ab' * 2", "abab"},
      {"2 * 'ab'", "abab"},
      {"'a' * -1", ""},
      {"[1] * 2", "[1, 1]"},
      {"[1] + [2]", "[1, 2]"},
      {"(1,) + (2,)", "(1, 2)"},
      {"'a' ~ 1 ~ none", "a1None"},
      {"9223372036854775807 // -1", "-9223372036854775807"},
  };
  for (const auto& [source, expected] : kCases) EXPECT_EQ(jinja_value(source), expected) << source;
}

TEST(JinjaOperators, NameWhatDoesNotFit) {
  EXPECT_EQ(jinja_value_error("1 / 0"), "1: division by zero");
  EXPECT_EQ(jinja_value_error("1 % 0"), "1: division by zero");
  EXPECT_EQ(jinja_value_error("1.0 // 0"), "1: division by zero");
  EXPECT_EQ(jinja_value_error("0 ** -1"), "1: division by zero");
  EXPECT_EQ(jinja_value_error("9223372036854775807 + 1"), "1: an integer is too large (64 bits)");
  EXPECT_EQ(jinja_value_error("-9223372036854775807 - 2"), "1: an integer is too large (64 bits)");
  EXPECT_EQ(jinja_value_error("(-9223372036854775807 - 1) // -1"), "1: an integer is too large (64 bits)");
  EXPECT_EQ(jinja_value_error("10 ** 19"), "1: an integer is too large (64 bits)");
  EXPECT_EQ(jinja_value_error("'a' + 1"), "1: unsupported operand types for +: 'str' and 'int'");
  EXPECT_EQ(jinja_value_error("none + 'a'"), "1: unsupported operand types for +: 'NoneType' and 'str'");
  EXPECT_EQ(jinja_value_error("[1] + (1,)"), "1: unsupported operand types for +: 'list' and 'tuple'");
  EXPECT_EQ(jinja_value_error("nothing + 'a'"), "1: 'nothing' is undefined");
  EXPECT_EQ(jinja_value_error("-'a'"), "1: bad operand type for unary -: 'str'");
  EXPECT_EQ(jinja_value_error("'%s' % 1"), "1: string formatting with % is not supported");
  EXPECT_EQ(jinja_value_error("'a' < 1"), "1: '<' not supported between 'str' and 'int'");
  EXPECT_EQ(jinja_value_error("1 in 'a'"),
            "1: the left side of 'in' with a string on the right must be a string, not 'int'");
  EXPECT_EQ(jinja_value_error("'a' in none"), "1: argument of type 'NoneType' is not iterable");
}

TEST(JinjaOperators, CompareAsPython) {
  const std::pair<const char*, const char*> kCases[] = {
      {"1 == 1.0", "True"},        {"1 == true", "True"},
      {"'1' == 1", "False"},       {"[1, 2] == [1, 2]", "True"},
      {"(1,) == [1]", "False"},    {"{'a': 1} == {'a': 1.0}", "True"},
      {"none == none", "True"},    {"nothing == none", "False"},
      {"'a' < 'b'", "True"},       {"[1, 2] < [1, 3]", "True"},
      {"[1] < [1, 0]", "True"},    {"1 <= 1", "True"},
      {"2 >= 3", "False"},         {"1 != 2", "True"},
      {"'b' in 'abc'", "True"},    {"1 in [1.0]", "True"},
      {"'k' in {'k': 1}", "True"}, {"'x' not in [1]", "True"},
      {"'x' in nothing", "False"}, {"nothing in {'x': 1}", "False"},
  };
  for (const auto& [source, expected] : kCases) EXPECT_EQ(jinja_value(source), expected) << source;
}

TEST(JinjaOperators, LookIntoValues) {
  const std::pair<const char*, const char*> kCases[] = {
      {"'abc'[0] ~ 'abc'[-1] ~ 'abc'[9]", "ac"},
      {"'é｜x'[1]", "｜"},
      {"[1, 2, 3][-2]", "2"},
      {"[[1, 2]].0.1", "2"},
      {"{'a': {'b': 3}}.a.b", "3"},
      {"{'items': 3}['items']", "3"},
      {"{'items': 3}.items()|list", "[('items', 3)]"},  // an attribute is the method first
      {"{1: 'x'}[1.0]", "x"},
      {"{'a': 1}.zz ~ [1].zz ~ (5).zz ~ none.zz ~ [1][none]", ""},
      {"{'a': 1}[[1]] is defined", "False"},
      {"namespace(a=1)['a']", "1"},
  };
  for (const auto& [source, expected] : kCases) EXPECT_EQ(jinja_value(source), expected) << source;
  EXPECT_EQ(jinja_value_error("nothing.x"), "1: 'nothing' is undefined");
  EXPECT_EQ(jinja_value_error("{'a': 1}.b.c"), "1: 'dict object' has no attribute 'b'");
  EXPECT_EQ(jinja_value_error("none.b.c"), "1: 'None' has no attribute 'b'");
  EXPECT_EQ(jinja_value_error("[1][7].c"), "1: 'list object' has no element 7");
}

TEST(JinjaOperators, SliceAsPython) {
  const std::pair<const char*, const char*> kCases[] = {
      {"'hello'[1:3]", "el"},
      {"'hello'[::-1]", "olleh"},
      {"'wé｜x'[:-1]", "wé｜"},
      {"'hello'[3:1]", ""},
      {"'hello'[-3:]", "llo"},
      {"'hello'[:100]", "hello"},
      {"'hello'[4::-2]", "olh"},
      {"'hello'[::2]", "hlo"},
      {"[1, 2, 3][1:]", "[2, 3]"},
      {"[1, 2, 3][::-1]", "[3, 2, 1]"},
      {"(1, 2, 3)[:2]", "(1, 2)"},
      {"[1, 2][5:]", "[]"},
      {"[1, 2, 3][none:2]", "[1, 2]"},
      {"[1, 2, 3][::9223372036854775807]", "[1]"},
      {"[1, 2, 3][::-9223372036854775807 - 1]", "[3]"},
  };
  for (const auto& [source, expected] : kCases) EXPECT_EQ(jinja_value(source), expected) << source;
  EXPECT_EQ(jinja_value_error("[1][::0]"), "1: slice step cannot be zero");
  EXPECT_EQ(jinja_value_error("[1]['a':]"), "1: a slice index must be an integer, not 'str'");
  EXPECT_EQ(jinja_value_error("{}[1:]"), "1: a dict can't be sliced");
}

}  // namespace
}  // namespace moraine::runtime::jinja
