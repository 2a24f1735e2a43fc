#include "runtime/jinja_literal.h"

#include <fmt/format.h>

#include <charconv>
#include <cmath>

#include "runtime/jinja_error.h"
#include "runtime/jinja_text.h"

namespace moraine::runtime::jinja {
namespace {

int digit_value(char c) {
  if (is_digit(c)) return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return 99;
}

/// End of a run of digits of `base` from `at` on; single underscores may stand between them.
size_t digits_end(std::string_view text, size_t at, int base) {
  const auto digit = [&](size_t i) { return i < text.size() && digit_value(text[i]) < base; };
  while (digit(at) || (at > 0 && at < text.size() && text[at] == '_' && digit(at - 1) && digit(at + 1))) ++at;
  return at;
}

std::string without_underscores(std::string_view text) {
  std::string result;
  for (const char c : text) {
    if (c != '_') result += c;
  }
  return result;
}

/// End of the float at the start of `text`, 0 if it holds none.
size_t float_end(std::string_view text) {
  const size_t whole = digits_end(text, 0, 10);
  size_t end = whole;
  if (end + 1 < text.size() && text[end] == '.' && is_digit(text[end + 1])) end = digits_end(text, end + 1, 10);
  if (end < text.size() && (text[end] == 'e' || text[end] == 'E')) {
    size_t exponent = end + 1;
    if (exponent < text.size() && (text[exponent] == '+' || text[exponent] == '-')) ++exponent;
    if (exponent < text.size() && is_digit(text[exponent])) end = digits_end(text, exponent, 10);
  }
  return end > whole ? end : 0;
}

NumberLiteral integer_literal(std::string_view text, size_t prefix, size_t end, int base, int line) {
  const std::string digits = without_underscores(text.substr(prefix, end - prefix));
  NumberLiteral literal{.bytes = end, .is_float = false, .integer = 0, .real = 0};
  const auto result = std::from_chars(digits.data(), digits.data() + digits.size(), literal.integer, base);
  if (result.ec != std::errc{}) throw TemplateError("an integer is too large (64 bits)", line);
  return literal;
}

/// Reads `count` hexadecimal digits at `at`, or -1.
int64_t hex_number(std::string_view text, size_t at, size_t count) {
  int64_t value = 0;
  for (size_t i = 0; i < count; ++i) {
    const int digit = at + i < text.size() ? digit_value(text[at + i]) : 99;
    if (digit > 15) return -1;
    value = value * 16 + digit;
  }
  return value;
}

/// Resolves the escape whose letter is at `at`; returns the offset behind it.
size_t append_escape(std::string& out, std::string_view text, size_t at, int line) {
  constexpr std::string_view kLetters = "\\'\"abfnrtv";
  constexpr std::string_view kMeanings = "\\'\"\a\b\f\n\r\t\v";
  const char letter = text[at];
  if (letter == '\n') return at + 1;
  if (const size_t simple = kLetters.find(letter); simple != std::string_view::npos) {
    out += kMeanings[simple];
    return at + 1;
  }
  if (letter >= '0' && letter <= '7') {
    uint32_t value = 0;
    size_t end = at;
    for (; end < at + 3 && end < text.size() && text[end] >= '0' && text[end] <= '7'; ++end) {
      value = value * 8 + static_cast<uint32_t>(text[end] - '0');
    }
    append_utf8(out, value);
    return end;
  }
  if (letter == 'N') throw TemplateError("the escape \\N{...} is not supported", line);
  const size_t count = letter == 'x' ? 2 : letter == 'u' ? 4 : letter == 'U' ? 8 : 0;
  if (count == 0) {
    out += '\\';
    out += letter;
    return at + 1;
  }
  const int64_t value = hex_number(text, at + 1, count);
  if (value < 0 || value > 0x10ffff) throw TemplateError(fmt::format("broken escape \\{} in a string", letter), line);
  if (value >= 0xd800 && value <= 0xdfff) throw TemplateError("a string escape is half of a surrogate pair", line);
  append_utf8(out, static_cast<char32_t>(value));
  return at + 1 + count;
}

}  // namespace

NumberLiteral scan_number(std::string_view text, bool allow_float, int line) {
  if (const size_t end = allow_float ? float_end(text) : 0; end > 0) {
    const std::string digits = without_underscores(text.substr(0, end));
    NumberLiteral literal{.bytes = end, .is_float = true, .integer = 0, .real = 0};
    const auto result = std::from_chars(digits.data(), digits.data() + digits.size(), literal.real);
    // Out of range either way: Python takes what doesn't fit as infinity and what is too small as zero.
    if (result.ec != std::errc{}) literal.real = digits.find("e-") == std::string::npos ? HUGE_VAL : 0;
    return literal;
  }
  if (text.size() > 2 && text[0] == '0') {
    const char letter = static_cast<char>(text[1] | 0x20);
    const int base = letter == 'x' ? 16 : letter == 'o' ? 8 : letter == 'b' ? 2 : 0;
    const size_t start = text[2] == '_' ? 3 : 2;
    if (base != 0 && start < text.size() && digit_value(text[start]) < base) {
      return integer_literal(text, start, digits_end(text, start, base), base, line);
    }
  }
  size_t end = digits_end(text, 0, 10);
  if (text[0] == '0') {  // 007 is not a number: it ends after the zeros
    end = 1;
    while (end < text.size() &&
           (text[end] == '0' || (text[end] == '_' && end + 1 < text.size() && text[end + 1] == '0')))
      ++end;
  }
  return integer_literal(text, 0, end, 10, line);
}

std::string unescape_string(std::string_view text, int line) {
  std::string result;
  for (size_t at = 0; at < text.size();) {
    if (text[at] == '\\' && at + 1 < text.size()) {
      at = append_escape(result, text, at + 1, line);
    } else {
      result += text[at++];
    }
  }
  return result;
}

}  // namespace moraine::runtime::jinja
