#include "runtime/jinja_lexer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "runtime/jinja_error.h"
#include "support/jinja_render.h"

namespace moraine::runtime::jinja {
namespace {

using testing::jinja_string;

/// Tokens as one line: kind-less texts joined by '¦', data in brackets.
std::string tokens_of(std::string_view source) {
  std::string result;
  for (const Token& token : tokenize(source)) {
    if (token.kind == TokenKind::kEnd) break;
    if (!result.empty()) result += "¦";
    result += token.kind == TokenKind::kData ? "[" + token.text + "]" : token.text;
  }
  return result;
}

std::string fault(std::string_view source) {
  try {
    tokenize(source);
  } catch (const TemplateError& error) {
    return std::to_string(error.line()) + ": " + error.what();
  }
  return "no error";
}

TEST(JinjaLexer, SplitsTagsAndOperators) {
  EXPECT_EQ(tokens_of("a{{ b.c|d(1, x=2)//3 }}e{% if f!=g %}"),
            "[a]¦{{¦b¦.¦c¦|¦d¦(¦1¦,¦x¦=¦2¦)¦//¦3¦}}¦[e]¦{%¦if¦f¦!=¦g¦%}");
  EXPECT_EQ(tokens_of("{{ {'a':{'b':1}}}}"), "{{¦{¦a¦:¦{¦b¦:¦1¦}¦}¦}}");  // }} inside braces is no end tag
  EXPECT_EQ(tokens_of("{{ '}}' }}"), "{{¦}}¦}}");
  EXPECT_EQ(tokens_of("{ { a } } {a}"), "[{ { a } } {a}]");
  EXPECT_EQ(tokens_of(""), "");
}

TEST(JinjaLexer, CountsLines) {
  const auto tokens = tokenize("a\n{# b\n #}\n{% raw %}\n{% endraw %}\n{{\nx\n}}\n{{ y }}");
  std::vector<std::pair<std::string, int>> names;
  for (const Token& token : tokens) {
    if (token.kind == TokenKind::kName) names.emplace_back(token.text, token.line);
  }
  EXPECT_THAT(names, ::testing::ElementsAre(::testing::Pair("x", 7), ::testing::Pair("y", 9)));
}

TEST(JinjaLexer, ReadsNumbers) {
  const auto integer = [](std::string_view text) { return tokenize("{{ " + std::string(text) + " }}")[1].integer; };
  const auto real = [](std::string_view text) { return tokenize("{{ " + std::string(text) + " }}")[1].real; };
  EXPECT_EQ(integer("0x1f"), 31);
  EXPECT_EQ(integer("0b11"), 3);
  EXPECT_EQ(integer("0o17"), 15);
  EXPECT_EQ(integer("1_000"), 1000);
  EXPECT_EQ(integer("9223372036854775807"), INT64_MAX);
  EXPECT_EQ(real("1.5e3"), 1500);
  EXPECT_EQ(real("1e-7"), 1e-7);
  EXPECT_EQ(tokens_of("{{ a.1.2 }}"), "{{¦a¦.¦1¦.¦2¦}}");  // no float after a dot
  EXPECT_EQ(tokens_of("{{ 007 }}"), "{{¦00¦7¦}}");
  EXPECT_EQ(fault("\n{{ 9223372036854775808 }}"), "2: an integer is too large (64 bits)");
}

TEST(JinjaLexer, ResolvesEscapes) {
  EXPECT_EQ(tokenize(R"({{ 'a\n\t\x41\u00e9\'\"\\\q\101' }})")[1].text, "a\n\tAé'\"\\\\qA");
  EXPECT_EQ(tokenize(R"({{ '\U0001f600' }})")[1].text, "😀");
  EXPECT_EQ(fault(R"({{ '\ud83d' }})"), "1: a string escape is half of a surrogate pair");
  EXPECT_EQ(fault(R"({{ '\x4' }})"), "1: broken escape \\x in a string");
  EXPECT_EQ(fault(R"({{ '\N{DASH}' }})"), "1: the escape \\N{...} is not supported");
}

/// Template and what it prints, checked with Jinja2 3.1.6.
TEST(JinjaLexer, CutsWhiteSpaceAsJinjaDoes) {
  const std::pair<const char*, const char*> kCases[] = {
      {"a\n  {% if true %}\n  x\n  {% endif %}\n b", "a\n  x\n b"},
      {"  {% if true %}x{% endif %}  \n", "x  "},
      {"{% if true %}\n\nx{% endif %}\n\n", "\nx"},
      {"a  {%- if true -%}  b  {%- endif -%}  c", "abc"},
      {"a\n\t{%+ if true +%}\n b {% endif %}", "a\n\t\n b "},
      {"a\r\nb\rc{{ 'x\r\ny' }}\r\n", "a\nb\ncx\ny"},
      {"  {# c #}\n  x {# d #}\ny", "  x y"},
      {"{#- a -#}  \n x", "x"},
      {"x{#+ a +#}\ny", "x\ny"},
      {"x\n   {#+ a #}y", "x\n   y"},
      {"  {{ 1 }}\n  {{- 2 -}} \n z", "  12z"},
      {"{{ 1 }}\n\n", "1\n"},
      {"\n", ""},
      {"{{-1}}{{+2}}", "12"},
      {"x {%- raw -%} {{ }} {% endraw %}\n y", "x{{ }}  y"},
      {"  {% raw %}\n  a {% endraw %}\n  b", "\n  a   b"},
      {"{% if true %}  \n  {% if true %}\n{% endif %}{% endif %}x", "  \nx"},
      {"\xe3\x80\x80{%- if true -%}\xc2\xa0x\xe2\x80\x83{% endif %}", "x\xe2\x80\x83"},
  };
  for (const auto& [source, expected] : kCases) EXPECT_EQ(jinja_string(source), expected) << source;
}

TEST(JinjaLexer, NamesWhatIsBroken) {
  EXPECT_EQ(fault("\n{{ a"), "2: unexpected end of template, expected '}}'");
  EXPECT_EQ(fault("{{ 'a }}"), "1: a string is not closed");
  EXPECT_EQ(fault("{{ 'a\\"), "1: a string is not closed");
  EXPECT_EQ(fault("{# a"), "1: Missing end of comment tag");
  EXPECT_EQ(fault("{% raw %}a"), "1: Missing end of raw directive");
  EXPECT_EQ(fault("{{ (a] }}"), "1: unexpected ']', expected ')'");
  EXPECT_EQ(fault("{{ a) }}"), "1: unexpected ')'");
  EXPECT_EQ(fault("{{ é }}"), "1: unexpected character 'é'");
  EXPECT_EQ(fault("{{ a ! }}"), "1: unexpected character '!'");
  EXPECT_EQ(fault("{{ " + std::string(257, 'a') + " }}"), "1: a name is too long");
}

}  // namespace
}  // namespace moraine::runtime::jinja
