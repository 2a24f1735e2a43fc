#include "runtime/jinja_filters.h"

#include <gtest/gtest.h>

#include "support/jinja_render.h"

namespace moraine::runtime::jinja {
namespace {

using testing::jinja_value;
using testing::jinja_value_error;

constexpr const char* kContext = R"({"a": "hello", "e": "", "n": 5, "l": [1, 2, "x"],
  "ms": [{"role": "user", "content": " hi\n"}, {"role": "assistant", "content": "yo"}]})";

std::string value_of(std::string_view expression) {
  return jinja_value(expression, kContext);
}
std::string error_of(std::string_view expression) {
  return jinja_value_error(expression, kContext);
}

/// All values in this file are checked with Jinja2 3.1.6.
TEST(JinjaFilters, OfSingleValues) {
  const std::pair<const char*, const char*> kCases[] = {
      {"ms[0].content|trim ~ '|'", "hi|"},
      {"'xax'|trim('x')", "a"},
      {"a|upper ~ 'AB'|lower ~ 'aB cD'|capitalize", "HELLOabAb cd"},
      {"\"it's (a b\"|title", "It's (A B"},
      {"a|replace('l', 1) ~ a|replace('l', 'L', 1)", "he11oheLlo"},
      {"a|length ~ l|length ~ {'k': 1}|count ~ nothing|length", "5310"},
      {"nothing|default('q') ~ e|default('x') ~ e|d('y', true) ~ e|d('z', boolean=true)", "qyz"},
      {"5|string + 'x' ~ 'y'|safe", "5xy"},
      {"'5'|int ~ ' 7 '|int ~ 'x'|int ~ 'x'|int(3) ~ 1.9|int ~ '3.7'|int ~ none|int ~ 'ff'|int(base=16)", "5703130255"},
      {"'2.5'|float ~ 'x'|float ~ 3|float", "2.50.03.0"},
      {"-3|abs ~ (-1.5)|abs", "31.5"},
      {"'a\\nb\\n\\nc'|indent ~ '|' ~ 'a\\nb'|indent(2, true) ~ '|' ~ 'a\\n\\nb'|indent(1, blank=true)",
       "a\n    b\n\n    c|  a\n  b|a\n \n b"},
  };
  for (const auto& [source, expected] : kCases) EXPECT_EQ(value_of(source), expected) << source;
}

TEST(JinjaFilters, OfSequences) {
  const std::pair<const char*, const char*> kCases[] = {
      {"l|first ~ l|last ~ []|first", "1x"},
      {"'abc'|list ~ {'k': 1}|list", "['a', 'b', 'c']['k']"},
      {"{'k': 1}|items|list ~ nothing|items|list", "[('k', 1)][]"},
      {"l|join(',') ~ l|join ~ ms|join('|', attribute='role')", "1,2,x12xuser|assistant"},
      {"ms|map(attribute='role')|list", "['user', 'assistant']"},
      {"ms|map(attribute='zz', default='D')|list", "['D', 'D']"},
      {"[{'a': {'b': [7, 8]}}]|map(attribute='a.b.1')|list", "[8]"},
      {"['a', 'b']|map('upper')|join ~ [[1, 2], [3]]|map('join', '-')|list", "AB['1-2', '3']"},
      {"l|select('number')|list ~ l|reject('string')|list ~ [0, 1]|select|list", "[1, 2][1, 2][1]"},
      {"l|reject('equalto', 2)|list", "[1, 'x']"},
      {"ms|selectattr('role', 'equalto', 'user')|map(attribute='content')|list", "[' hi\\n']"},
      {"ms|rejectattr('role', 'eq', 'user')|list|length ~ ms|selectattr('zz')|list", "1[]"},
      {"'abc'|reverse ~ [1, 2]|reverse|list", "cba[2, 1]"},
      {"['b', 'A', 'c']|sort ~ ['b', 'A']|sort(case_sensitive=true) ~ [3, 1]|sort(reverse=true)",
       "['A', 'b', 'c']['A', 'b'][3, 1]"},
      {"ms|sort(attribute='role')|map(attribute='role')|list", "['assistant', 'user']"},
      {"[1, 2, 1, 'a', 'A']|unique|list", "[1, 2, 'a']"},
      {"none|map('upper')|list ~ 0|select|list", "[][]"},
  };
  for (const auto& [source, expected] : kCases) EXPECT_EQ(value_of(source), expected) << source;
}

TEST(JinjaFilters, NameWhatIsWrong) {
  EXPECT_EQ(error_of("5|length"), "1: object of type 'int' has no len()");
  EXPECT_EQ(error_of("5|items"), "1: Can only get item pairs from a mapping.");
  EXPECT_EQ(error_of("l|map('foo')|list"), "1: no filter named 'foo'");
  EXPECT_EQ(error_of("l|select('foo')|list"), "1: no test named 'foo'");
  EXPECT_EQ(error_of("l|map|list"), "1: map needs a filter or an attribute");
  EXPECT_EQ(error_of("l|map('map', 'map')|list"), "1: map inside map is not supported");
  EXPECT_EQ(error_of("l|sort"), "1: '<' not supported between 'str' and 'int'");
  EXPECT_EQ(error_of("a|trim('x', 'y')"), "1: 'strip' takes at most 1 arguments, got 2");
  EXPECT_EQ(error_of("a|upper(x=1)"), "1: 'upper, lower, title or capitalize' has no argument 'x'");
  EXPECT_EQ(error_of("l|map(attribute='role')|length"), "1: object of type 'generator' has no len()");
}

TEST(JinjaTests, AnswerAsJinja) {
  const std::pair<const char*, const char*> kTrue[] = {
      {"a", "defined"},        {"nothing", "undefined"},
      {"none", "none"},        {"a", "string"},
      {"n", "number"},         {"true", "number"},
      {"n", "integer"},        {"1.5", "float"},
      {"true", "boolean"},     {"true", "true"},
      {"false", "false"},      {"{}", "mapping"},
      {"l", "iterable"},       {"a", "iterable"},
      {"nothing", "iterable"}, {"l", "sequence"},
      {"{}", "sequence"},      {"range", "callable"},
      {"4", "even"},           {"3", "odd"},
      {"4", "divisibleby 2"},  {"1", "eq 1"},
      {"1", "ne 2"},           {"1", "lt 2"},
      {"2", "ge(2)"},          {"1", "in [1]"},
      {"none", "sameas none"}, {"a", "equalto 'hello'"},
  };
  const std::pair<const char*, const char*> kFalse[] = {
      {"nothing", "defined"}, {"true", "integer"}, {"l", "mapping"},    {"n", "iterable"},
      {"n", "sequence"},      {"1", "true"},       {"0", "false"},      {"l|map('string')", "sequence"},
      {"a", "callable"},      {"1", "sameas 1.0"}, {"none", "mapping"}, {"none", "iterable"},
      {"nothing", "none"},
  };
  for (const auto& [value, test] : kTrue) {
    EXPECT_EQ(value_of(std::string(value) + " is " + test), "True") << value << " is " << test;
    EXPECT_EQ(value_of(std::string(value) + " is not " + test), "False") << value << " is not " << test;
  }
  for (const auto& [value, test] : kFalse) EXPECT_EQ(value_of(std::string(value) + " is " + test), "False") << test;
  EXPECT_EQ(error_of("a is odd"), "1: string formatting with % is not supported");
  EXPECT_EQ(error_of("nothing.x is defined"), "1: 'nothing' is undefined");
}

}  // namespace
}  // namespace moraine::runtime::jinja
