#include "runtime/jinja_methods.h"

#include <gtest/gtest.h>

#include "support/jinja_render.h"

namespace moraine::runtime::jinja {
namespace {

using testing::jinja_error;
using testing::jinja_string;
using testing::jinja_value;
using testing::jinja_value_error;

/// All values here are checked with Jinja2 3.1.6 on Python 3.11.
TEST(JinjaMethods, OfStrings) {
  const std::pair<const char*, const char*> kCases[] = {
      {"'a,b,,c'.split(',')", "['a', 'b', '', 'c']"},
      {"'a,b,,c'.split(',', 1)", "['a', 'b,,c']"},
      {"'a,b,,c'.split(sep=',', maxsplit=0)", "['a,b,,c']"},
      {"'  a b\\tc \\n'.split()", "['a', 'b', 'c']"},
      {"'  a b\\tc \\n'.split(none, 1)", "['a', 'b\\tc \\n']"},
      {"''.split(',')", "['']"},
      {"''.split()", "[]"},
      {"'abc'.split('abc')", "['', '']"},
      {"'a,b,c'.rsplit(',', 1)", "['a,b', 'c']"},
      {"'a,b,c'.rsplit(',')", "['a', 'b', 'c']"},
      {"'a\\nb\\r\\nc\\n'.splitlines()", "['a', 'b', 'c']"},
      {"'xxaxx'.strip('x') ~ 'xyaxy'.lstrip('yx') ~ 'xyaxy'.rstrip('yx')", "aaxyxya"},
      {"'\\n\\na\\n'.lstrip('\\n') ~ '|'", "a\n|"},
      {"'hello'.startswith('he') ~ 'hello'.endswith(('x', 'lo'))", "TrueTrue"},
      {"'hello'.removeprefix('he') ~ 'hello'.removesuffix('lo') ~ 'a'.removeprefix('x')", "llohela"},
      {"'hello'.replace('l', 'L') ~ 'hello'.replace('l', 'L', 1)", "heLLoheLlo"},
      {"'wö｜x'.find('｜') ~ 'a'.find('b')", "2-1"},
      {"'hello'.count('l') ~ 'hello'.count('')", "26"},
      {"', '.join(['a', 'b'])", "a, b"},
      {"'aB'.upper() ~ 'aB'.lower() ~ 'ab cd'.title() ~ 'aB'.capitalize()", "ABabAb CdAb"},
  };
  for (const auto& [source, expected] : kCases) EXPECT_EQ(jinja_value(source), expected) << source;
}

TEST(JinjaMethods, OfDictionariesListsAndLoops) {
  const std::pair<const char*, const char*> kCases[] = {
      {"{'a': 1}.get('a') ~ {'a': 1}.get('b') ~ {'a': 1}.get('b', 5)", "1None5"},
      {"{'a': 1, 'b': 2}.keys()|list", "['a', 'b']"},
      {"{'a': 1, 'b': 2}.values()|list", "[1, 2]"},
      {"{'a': 1}.copy()", "{'a': 1}"},
      {"[1, 2, 1].index(2) ~ (1, 2, 1).count(1)", "12"},
  };
  for (const auto& [source, expected] : kCases) EXPECT_EQ(jinja_value(source), expected) << source;
  EXPECT_EQ(jinja_string("{% for x in [1, 2, 3] %}{{ loop.cycle('a', 'b') }}{% endfor %}"), "aba");
}

TEST(JinjaMethods, NameWhatIsWrong) {
  EXPECT_EQ(jinja_value_error("'a'.foo()"), "1: 'str object' has no attribute 'foo'");
  EXPECT_EQ(jinja_value_error("[1].append(2)"),
            "1: 'list object' has no attribute 'append'");  // the sandbox is immutable
  EXPECT_EQ(jinja_value_error("{}.update({})"), "1: 'dict object' has no attribute 'update'");
  EXPECT_EQ(jinja_value_error("'a'.split('')"), "1: empty separator");
  EXPECT_EQ(jinja_value_error("','.join([1])"), "1: every item of join must be a string, not 'int'");
  EXPECT_EQ(jinja_value_error("'a'.strip(1)"), "1: the argument of strip must be a string, not 'int'");
  EXPECT_EQ(jinja_value_error("'a'.upper(1)"),
            "1: 'upper, lower, title or capitalize' takes at most 0 arguments, got 1");
  EXPECT_EQ(jinja_value_error("[1].index(2)"), "1: the value is not in the list");
}

TEST(JinjaMethods, CostIsBounded) {
  Limits limits;
  limits.max_steps = 1'000'000;
  const auto error_within = [&](const std::string& source) { return jinja_error(source, "{}", limits); };
  const std::string grow = "{% set a = 'a' * 2000000 %}{% for i in range(90000) %}";
  const std::string steps = "1: the template runs too long (step limit)";
  EXPECT_EQ(error_within(grow + "{% set x = a.startswith(a) %}{% endfor %}"), steps);
  EXPECT_EQ(error_within(grow + "{% set x = [a] == [a] %}{% endfor %}"), steps);
  EXPECT_EQ(error_within(grow + "{% set x = a.find(a) %}{% endfor %}"), steps);
  EXPECT_EQ(error_within(grow + "{% set x = a.strip(a) %}{% endfor %}"), steps);
  EXPECT_EQ(error_within(grow + "{% set x = 'b' in a %}{% endfor %}"), steps);
  EXPECT_EQ(jinja_error("{{ ('a' * 2000000).split('a') }}"), "1: the template makes a list that is too long");
  EXPECT_EQ(jinja_error("{{ ('a' * 60000000).replace('a', 'aa') }}"),
            "1: the template makes a string that is too long");
}

}  // namespace
}  // namespace moraine::runtime::jinja
