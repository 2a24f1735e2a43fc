#include "runtime/jinja_parser.h"

#include <gtest/gtest.h>

#include "runtime/jinja_error.h"
#include "support/jinja_render.h"

namespace moraine::runtime::jinja {
namespace {

using testing::jinja_string;

std::string fault(std::string_view source) {
  try {
    parse_template(source);
  } catch (const TemplateError& error) {
    return std::to_string(error.line()) + ": " + error.what();
  }
  return "no error";
}

std::string repeated(std::string_view text, size_t count) {
  std::string result;
  for (size_t i = 0; i < count; ++i) result += text;
  return result;
}

/// Expressions whose value shows how they were grouped; checked with Jinja2 3.1.6.
TEST(JinjaParser, GroupsOperatorsAsJinjaDoes) {
  const std::pair<const char*, const char*> kCases[] = {
      {"1 + 2 * 3", "7"},
      {"10 - 2 - 3", "5"},
      {"2 * 3 % 4", "2"},
      {"-2 ** 2", "4"},
      {"2 ** 3 ** 2", "64"},
      {"'a' + 1 ~ 2", "a12"},  // ~ binds tighter than +
      {"'a' + 'b'|upper", "aB"},
      {"-3|abs", "3"},
      {"not 1 == 2", "True"},
      {"not true or true", "True"},
      {"true or false and false", "True"},
      {"1 < 2 < 3", "True"},
      {"3 > 2 > 2", "False"},
      {"1 in [1] == true", "False"},
      {"'a' if false else 'b' if true else 'c'", "b"},
      {"'a' if false", ""},
      {"none is none and 1 is not none", "True"},
      {"4 is divisibleby 2", "True"},
      {"1, 2", "(1, 2)"},
      {"(1)", "1"},
      {"(1,)", "(1,)"},
      {"[1, 2,]", "[1, 2]"},
      {"{'a': 1,}['a']", "1"},
      {"'a' 'b'", "ab"},
      {"- - 2", "2"},
  };
  for (const auto& [source, expected] : kCases) {
    EXPECT_EQ(jinja_string("{{ " + std::string(source) + " }}"), expected) << source;
  }
}

TEST(JinjaParser, NamesSyntaxErrorsWithTheirLine) {
  const std::pair<const char*, const char*> kCases[] = {
      {"\n\n{% if a %}", "3: unexpected end of template, expected 'endif'"},
      {"{% for x in y %}{% endif %}", "1: unknown tag 'endif'"},
      {"{% endfor %}", "1: unknown tag 'endfor'"},
      {"{% foo %}", "1: unknown tag 'foo'"},
      {"{{ a b }}", "1: expected '}}', got 'b'"},
      {"{{ }}", "1: expected an expression, got '}}'"},
      {"{{ a. }}", "1: expected a name or number, got '}}'"},
      {"{{ a | }}", "1: expected a name, got '}}'"},
      {"{% for x %}{% endfor %}", "1: expected 'in', got '%}'"},
      {"{% set 1 = 2 %}", "1: expected a name, got '1'"},
      {"{% set true = 2 %}", "1: can't assign to 'true'"},
      {"{{ f(a=1, 2) }}", "1: an argument without a name follows one with a name"},
      {"{% macro f(a=1, b) %}{% endmacro %}", "1: non-default argument follows default argument"},
      {"{{ 'a' is string is string }}", "1: You cannot chain multiple tests with is"},
      {"{% call 1 %}{% endcall %}", "1: expected a call"},
      {"{% break %}", "1: 'break' outside of a loop"},
      {"{% for x in y %}{% macro f() %}{% continue %}{% endmacro %}{% endfor %}", "1: 'continue' outside of a loop"},
  };
  for (const auto& [source, expected] : kCases) EXPECT_EQ(fault(source), expected) << source;
}

TEST(JinjaParser, NamesWhatIsNotSupported) {
  EXPECT_EQ(fault("\n{% include 'x' %}"), "2: the tag 'include' is not supported");
  EXPECT_EQ(fault("{% block x %}{% endblock %}"), "1: the tag 'block' is not supported");
  EXPECT_EQ(fault("{{ a | urlize }}"), "1: the filter 'urlize' is not supported");
  EXPECT_EQ(fault("{{ a is escaped }}"), "1: the test 'escaped' is not supported");
  EXPECT_EQ(fault("{{ f(*a) }}"), "1: * and ** in a call are not supported");
  EXPECT_EQ(fault("{% for a in b recursive %}{% endfor %}"), "1: recursive loops are not supported");
  EXPECT_EQ(fault("{% macro f() %}{{ varargs }}{% endmacro %}"), "1: 'varargs' in a macro is not supported");
  EXPECT_EQ(fault("{{ a[1, 2] }}"), "1: several subscripts are not supported");
}

TEST(JinjaParser, BoundsNesting) {
  constexpr size_t kMany = 100'000;
  const std::string nested = "the template is nested too deeply";
  EXPECT_EQ(fault("{{ " + repeated("(", kMany) + "1" + repeated(")", kMany) + " }}"), "1: " + nested);
  EXPECT_EQ(fault("{{ " + repeated("[", kMany) + repeated("]", kMany) + " }}"), "1: " + nested);
  EXPECT_EQ(fault("{{ " + repeated("{1:", kMany) + "1" + repeated("}", kMany) + " }}"), "1: " + nested);
  EXPECT_EQ(fault("{{ " + repeated("not ", kMany) + "1 }}"), "1: " + nested);
  EXPECT_EQ(fault("{{ " + repeated("- ", kMany) + "1 }}"), "1: " + nested);
  EXPECT_EQ(fault("{{ " + repeated("1 if 1 else ", 50'000) + "1 }}"), "1: " + nested);
  EXPECT_EQ(fault(repeated("{% if 1 %}", 50'000)), "1: " + nested);
  EXPECT_EQ(fault("{% set " + repeated("(", kMany) + "a" + repeated(")", kMany) + " = 1 %}"), "1: " + nested);
  EXPECT_EQ(fault("{{ a" + repeated(".b", kMany) + " }}"), "1: an expression is nested too deeply");
  EXPECT_EQ(fault("{{ a" + repeated("|list", kMany) + " }}"), "1: an expression is nested too deeply");
  EXPECT_EQ(fault("{{ a" + repeated("()", kMany) + " }}"), "1: an expression is nested too deeply");
  EXPECT_EQ(fault("{{ 1" + repeated(" if 1", kMany) + " }}"), "1: an expression is nested too deeply");
  EXPECT_EQ(fault("{{ " + repeated("(", 98) + "1" + repeated(")", 98) + " }}"), "no error");
}

TEST(JinjaParser, TakesLongChains) {
  constexpr size_t kMany = 50'000;
  EXPECT_EQ(jinja_string("{{ 0" + repeated(" + 1", kMany) + " }}"), "50000");
  EXPECT_EQ(jinja_string("{{ 1" + repeated(" and 1", kMany) + " }}"), "1");
  EXPECT_EQ(jinja_string("{{ (1" + repeated(" ~ 1", kMany) + ")|length }}"), "50001");
  EXPECT_EQ(jinja_string("{{ 1" + repeated(" == 1", kMany) + " }}"), "True");
  EXPECT_EQ(jinja_string("{% if 0 %}" + repeated("{% elif 0 %}", kMany) + "{% else %}x{% endif %}"), "x");
}

TEST(JinjaParser, BoundsSizes) {
  EXPECT_EQ(fault(std::string(kMaxTemplateBytes, 'a')), "no error");
  EXPECT_EQ(fault(std::string(kMaxTemplateBytes + 1, 'a')), "0: the template is too long (1048577 bytes)");
  EXPECT_EQ(fault("{{ f(" + repeated("1,", 255) + ") }}"), "no error");
  EXPECT_EQ(fault("{{ f(" + repeated("1,", 256) + ") }}"), "1: too many arguments");
  EXPECT_EQ(fault("{% macro f(" + repeated("a,", 255) + "a) %}{% endmacro %}"), "1: too many parameters");
}

}  // namespace
}  // namespace moraine::runtime::jinja
