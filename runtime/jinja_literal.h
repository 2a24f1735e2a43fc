#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace moraine::runtime::jinja {

inline bool is_digit(char c) {
  return c >= '0' && c <= '9';
}
/// A byte that may start a name.
inline bool is_name_byte(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
}

struct NumberLiteral {
  size_t bytes;  ///< length in the source
  bool is_float;
  int64_t integer;
  double real;
};

/// The number at the start of `text`, which starts with a digit: 12, 1_000, 0x1f, 0o17, 0b11, 1.5, 1e3.
/// `allow_float` is false after a dot (`a.1.2`). Throws TemplateError at `line` for an integer beyond 64 bits.
NumberLiteral scan_number(std::string_view text, bool allow_float, int line);

/// The inside of a quoted string with Python's escapes resolved to UTF-8; unknown escapes stay as written.
/// Throws TemplateError at `line` for broken \x, \u, \U, for \N{…}, and for surrogates, which UTF-8 can't hold.
std::string unescape_string(std::string_view text, int line);

}  // namespace moraine::runtime::jinja
