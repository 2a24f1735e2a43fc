#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace moraine::runtime::jinja {

enum class TokenKind {
  kData,           ///< literal text between tags
  kVariableBegin,  ///< {{
  kVariableEnd,    ///< }}
  kBlockBegin,     ///< {%
  kBlockEnd,       ///< %}
  kName,
  kString,
  kInteger,
  kFloat,
  kOperator,
  kEnd,  ///< end of the template
};

struct Token {
  TokenKind kind;
  int line;          ///< 1-based
  std::string text;  ///< data, name, operator, or the string with its escapes resolved
  int64_t integer = 0;
  double real = 0;

  bool is_operator(std::string_view op) const { return kind == TokenKind::kOperator && text == op; }
  bool is_name(std::string_view name) const { return kind == TokenKind::kName && text == name; }
};

/// Splits a template into tokens, the last one kEnd, as Jinja2 3.1 does with trim_blocks, lstrip_blocks and without
/// keep_trailing_newline: white space around tags is already cut, comments and raw tags are gone, \r\n and \r are \n.
/// Time and memory are linear in the source. Throws TemplateError with a line for a stray character, an open string,
/// comment or raw block, an unbalanced bracket, or a name of more than 256 bytes.
std::vector<Token> tokenize(std::string_view source);

}  // namespace moraine::runtime::jinja
