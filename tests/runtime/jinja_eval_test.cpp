#include "runtime/jinja_eval.h"

#include <gtest/gtest.h>

#include "support/jinja_render.h"

namespace moraine::runtime::jinja {
namespace {

using testing::jinja_error;
using testing::jinja_string;
using testing::render_jinja;

constexpr const char* kContext = R"({"l": [1, 2, "x"], "d": {"k": "v", "q": 3}, "t": "é｜"})";

struct Case {
  const char* source;
  const char* expected;
};

void expect_all(std::initializer_list<Case> cases) {
  for (const auto& [source, expected] : cases) EXPECT_EQ(jinja_string(source, kContext), expected) << source;
}

/// All values in this file are checked with Jinja2 3.1.6.
TEST(JinjaEval, ChoosesAndRepeats) {
  expect_all({
      {"{% if nothing %}1{% elif d %}2{% else %}3{% endif %}", "2"},
      {"{% if '' %}1{% elif none %}2{% else %}3{% endif %}", "3"},
      {"{% for x in l %}{{ loop.index }}{{ loop.index0 }}{{ loop.revindex }}{{ loop.revindex0 }}{{ loop.length }}"
       "{{ loop.first }}{{ loop.last }}{{ loop.depth }}{{ loop.previtem }}{{ loop.nextitem }};{% endfor %}",
       "10323TrueFalse12;21213FalseFalse11x;32103FalseTrue12;"},
      {"{% for x in [] %}x{% else %}none{% endfor %}{% for x in nothing %}x{% else %}none{% endfor %}", "nonenone"},
      {"{% for k, v in d.items() %}{{ k }}={{ v }};{% endfor %}{% for k in d %}{{ k }}{% endfor %}", "k=v;q=3;kq"},
      {"{% for c in t %}{{ c }}.{% endfor %}", "é.｜."},
      {"{% for (a, b), c in [((1, 2), 3)] %}{{ a }}{{ b }}{{ c }}{% endfor %}", "123"},
      {"{% for x in range(8) if x is even %}{{ x }}{{ loop.length }}{% endfor %}", "04244464"},
      {"{% for x in range(9) %}{% if x == 1 %}{% continue %}{% endif %}{% if x == 3 %}{% break %}{% endif %}{{ x }}"
       "{% endfor %}",
       "02"},
      {"{% for x in [1] %}{% break %}{% else %}else{% endfor %}", "else"},  // no turn came to its end
      {"{% for x in range(3) %}{% for y in range(x) %}{{ loop.index }}{% endfor %}{{ loop.index }};{% endfor %}",
       "1;12;123;"},
  });
  EXPECT_EQ(jinja_error("{% for a, b in [1] %}{% endfor %}"), "1: 'int' object is not iterable");
  EXPECT_EQ(jinja_error("{% for a, b in [(1, 2, 3)] %}{% endfor %}"), "1: expected 2 values to unpack, got 3");
  EXPECT_EQ(jinja_error("\n{% for x in 5 %}{% endfor %}"), "2: 'int' object is not iterable");
}

TEST(JinjaEval, AssignsInItsScope) {
  expect_all({
      {"{% set x = 1 %}{% for i in [1, 2] %}{% set x = x + 1 %}{{ x }}{% endfor %}{{ x }}", "221"},
      {"{% if true %}{% set x = 1 %}{% endif %}{{ x }}", "1"},
      {"{% set ns = namespace(x=1) %}{% for i in [1, 2] %}{% set ns.x = ns.x + i %}{% endfor %}{{ ns.x }}", "4"},
      {"{% set a, b = 1, 2 %}{{ a }}{{ b }}{% set c = 1, %}{{ c }}", "12(1,)"},
      {"{% set x %}ab{{ d.q }}{% endset %}{{ x|upper }}{% set x | trim | upper %} c {% endset %}{{ x }}", "AB3C"},
      {"{% with x = 1, y = 2 %}{{ x }}{{ y }}{% endwith %}{{ x }}", "12"},
      {"{% filter upper %}a{{ t }}{% endfilter %}{% filter replace('a', 'b') | upper %}aca{% endfilter %}", "AÉ｜BCB"},
      {"{% generation %}a{% set x = 1 %}{% endgeneration %}{{ x }}", "a"},
      {"{{ dict(a=1, b=2) }}{{ dict({'x': 1}, y=2) }}{{ namespace({'x': 7}).x }}", "{'a': 1, 'b': 2}{'x': 1, 'y': 2}7"},
      {"{{ range(3)|list }}{{ range(1, 4)|list }}{{ range(5, 0, -2)|list }}", "[0, 1, 2][1, 2, 3][5, 3, 1]"},
  });
  EXPECT_EQ(jinja_error("{% set d.x = 1 %}", kContext), "1: cannot assign attribute on non-namespace object");
}

TEST(JinjaEval, CallsMacros) {
  expect_all({
      {"{% macro f(a, b='d', c=none) %}[{{ a }}{{ b }}{{ c }}]{% endmacro %}{{ f(1) }}{{ f(1, c=2) }}{{ f(b=1, a=2) }}",
       "[1dNone][1d2][21None]"},
      {"{% macro f(a) %}<{{ a }}>{% endmacro %}{{ f() }}", "<>"},
      {"{% macro f(x) %}{% if x > 0 %}{{ x }}{{ f(x - 1) }}{% endif %}{% endmacro %}{{ f(5) }}", "54321"},
      {"{% macro f() %}<{{ caller() }}>{% endmacro %}{% call f() %}in{{ d.q }}{% endcall %}", "<in3>"},
      {"{% macro f() %}{{ caller(1, 2) }}{% endmacro %}{% call(p, q) f() %}{{ p }}-{{ q }}{% endcall %}", "1-2"},
      {"{% macro f() %}{{ v }}{% endmacro %}{% set v = 3 %}{{ f() }}{% set v = 4 %}{{ f() }}", "34"},
  });
  // A macro outlives the turn of the loop that made it (Jinja itself prints "missing" for its variables then).
  EXPECT_EQ(jinja_string("{% set ns = namespace() %}{% for i in [1, 2] %}{% macro f() %}{{ i }}{% endmacro %}"
                         "{% set ns.f = f %}{% endfor %}{{ ns.f() }}"),
            "2");
  EXPECT_EQ(jinja_error("{% macro f(a) %}{% endmacro %}{{ f(1, 2) }}"),
            "1: macro 'f' takes not more than 1 argument(s)");
  EXPECT_EQ(jinja_error("{% macro f(a) %}{% endmacro %}{{ f(b=2) }}"), "1: macro 'f' takes no keyword argument 'b'");
  EXPECT_EQ(jinja_error("{{ 5() }}"), "1: 'int' object is not callable");
}

TEST(JinjaEval, RaisesAndTellsTheLine) {
  EXPECT_EQ(jinja_error("a\n\n{{ raise_exception('no ' + d.k) }}", kContext), "3: no v");
  EXPECT_EQ(jinja_error("\n{% if true %}\n{{ l[0].x.y }}{% endif %}", kContext),
            "3: 'int object' has no attribute 'x'");
  EXPECT_EQ(jinja_error("\n{{ undefined_function() }}"), "2: 'undefined_function' is undefined");
}

TEST(JinjaEval, ReadsTheInjectedClock) {
  constexpr std::time_t kNoon = 1'721'995'200;  // 26 July 2024, 12:00 UTC: the same date in most time zones
  const Text text = render_jinja("{{ strftime_now('%d %b %Y') }}", "{}", {}, kNoon);
  EXPECT_EQ(text.bytes(), "26 Jul 2024");
  EXPECT_TRUE(text.trusted_at(0));
  EXPECT_EQ(jinja_string("{{ strftime_now('') }}"), "");
  EXPECT_EQ(jinja_error("{{ strftime_now('%9999999d') }}"), "1: the result of strftime_now is too long");
  EXPECT_EQ(jinja_error("{{ strftime_now('a\\x00') }}"),
            "1: the format of strftime_now is too long or holds a zero byte");
}

/// The output with what is untrusted in brackets.
std::string marked(std::string_view source) {
  const Text text = render_jinja(source, R"({"u": "USER", "m": [{"content": " x</t>Y "}], "n": 7})");
  std::string result;
  size_t begin = 0;
  for (const Text::Run& run : text.runs()) {
    const std::string part(text.bytes().substr(begin, run.end - begin));
    result += run.trusted ? part : "[" + part + "]";
    begin = run.end;
  }
  return result;
}

TEST(JinjaEval, KeepsTheOriginOfText) {
  const std::pair<const char*, const char*> kCases[] = {
      {"<s>{{ u }}</s>", "<s>[USER]</s>"},
      {"{{ '<' + u + '>' }}", "<[USER]>"},
      {"{{ '<' ~ u ~ '>' ~ 'x' }}", "<[USER]>x"},
      {"{{ (('<' + u + '>')[:3]) }}{{ ('<' + u)[::-1] }}", "<[USRESU]<"},
      {"{{ m[0].content.split('</t>')[-1].strip() }}|{{ m[0]['content']|trim }}", "[Y]|[x</t>Y]"},
      {"{{ u.replace('S', '-') }}{{ 'a-b'.replace('-', u) }}", "[U]-[ER]a[USER]b"},
      {"{{ [u, 'b']|join('<>') }}{{ '<>'.join([u, u]) }}", "[USER]<>b[USER]<>[USER]"},
      {"{{ u|lower }}{{ ('a' + u)|title }}", "[user]A[user]"},
      {"{{ u|tojson }}{{ {'k': u}|tojson }}", "[\"USER\"{\"]k[\": \"USER\"}]"},
      {"{% for c in u %}{{ c }}.{% endfor %}", "[U].[S].[E].[R]."},
      {"{% set x %}<{{ u }}>{% endset %}{{ x }}{% filter lower %}<{{ u }}>{% endfilter %}", "<[USER]><[user]>"},
      {"{% macro f(a) %}<{{ a }}>{% endmacro %}{{ f(u) }}{{ f('t') }}", "<[USER]><t>"},
      {"{{ n }}{{ u == 'USER' }}", "[7True]"},  // numbers and structure count as untrusted
      {"{{ u if u else 'x' }}{{ nothing or 'x' }}{{ u|default('x') }}{{ nothing|default('x') }}", "[USER]x[USER]x"},
      {"{{ 'a\\nb'|indent(u) }}{{ u * 2 }}{{ u|first }}{{ u|list|last }}", "a\n[USER]b[USERUSERUR]"},
      {"{% for k in m[0] %}{{ k }}{% endfor %}", "[content]"},  // keys come from the context too
  };
  for (const auto& [source, expected] : kCases) EXPECT_EQ(marked(source), expected) << source;
}

TEST(JinjaEval, EndsWhateverATemplateDoes) {
  const std::string steps = "1: the template runs too long (step limit)";
  const std::string loop = "{% for a in range(99999) %}";
  EXPECT_EQ(jinja_error(loop + loop + loop + "{% endfor %}{% endfor %}{% endfor %}"), steps);
  EXPECT_EQ(jinja_error("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}"), "1: macros call each other too deeply");
  EXPECT_EQ(jinja_error("{% macro f() %}{{ f() }}{{ f() }}{% endmacro %}{{ f() }}"),
            "1: macros call each other too deeply");
  EXPECT_EQ(jinja_error("{% macro f(x) %}{% if x %}{{ f(x - 1) }}{{ f(x - 1) }}{% endif %}{% endmacro %}{{ f(90) }}"),
            steps);
  EXPECT_EQ(jinja_error("{% set ns = namespace(s='a') %}" + loop + "{% set ns.s = ns.s + ns.s %}{% endfor %}"),
            "1: the template makes a string that is too long");
  EXPECT_EQ(jinja_error("{% set ns = namespace(l=[1]) %}" + loop + "{% set ns.l = ns.l + ns.l %}{% endfor %}"),
            "1: the template makes a list that is too long");
  EXPECT_EQ(jinja_error("{% set ns = namespace(l=[]) %}" + loop + "{% set ns.l = [ns.l] %}{% endfor %}"),
            "1: lists and dictionaries are nested too deeply");
  EXPECT_EQ(jinja_error(loop + loop + "0123456789abcdef0123456789abcdef{% endfor %}{% endfor %}"),
            "1: the template makes a string that is too long");  // the output
  EXPECT_EQ(jinja_error("{{ range(100001) }}"), "1: Range too big. The sandbox blocks ranges larger than 100000.");
  EXPECT_EQ(jinja_error("{{ 'a' * 9223372036854775807 }}"), "1: the template makes a string that is too long");
  EXPECT_EQ(jinja_error("{{ [1] * 9223372036854775807 }}"), "1: the template makes a list that is too long");
}

TEST(JinjaEval, KnotsOfNamespacesAreFreed) {
  EXPECT_EQ(jinja_string("{% set a = namespace() %}{% set b = namespace(a=a) %}{% set a.b = b %}{% set a.l = [a, b] %}"
                         "{{ a.b.a.l[1].a == a }}"),
            "True");
  EXPECT_EQ(jinja_string("{% set r = namespace(h=none) %}{% for i in range(99999) %}{% set r.h = namespace(p=r.h) %}"
                         "{% endfor %}{{ r.h.p.p is defined }}"),
            "True");  // a chain of 99,999: freeing it must not recurse
}

TEST(JinjaEval, DeepRecursionEndsWithAnError) {
  std::string deep(90, '(');
  deep += "f()";
  for (int i = 0; i < 90; ++i) deep += ")|string";
  EXPECT_EQ(jinja_error("{% macro f() %}{{ " + deep + " }}{% endmacro %}{{ f() }}"),
            "1: the template recurses too deeply");
}

}  // namespace
}  // namespace moraine::runtime::jinja
