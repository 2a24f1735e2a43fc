#include "runtime/jinja_lexer.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <optional>

#include "quant/error.h"
#include "runtime/jinja_error.h"
#include "runtime/jinja_literal.h"
#include "runtime/jinja_text.h"

namespace moraine::runtime::jinja {
namespace {

constexpr size_t npos = std::string_view::npos;
constexpr size_t kMaxNameBytes = 256;

std::string normalize_newlines(std::string_view source) {
  std::string result;
  result.reserve(source.size());
  for (size_t i = 0; i < source.size(); ++i) {
    if (source[i] != '\r') {
      result += source[i];
    } else if (i + 1 == source.size() || source[i + 1] != '\n') {
      result += '\n';
    }
  }
  if (result.ends_with('\n')) result.pop_back();  // Jinja drops one newline at the end
  return result;
}

/// Whether all of `text`, at least one character, is white space.
bool is_blank(std::string_view text) {
  return !text.empty() && strip_range(text, std::nullopt, true, false).first == text.size();
}

class Lexer {
 public:
  explicit Lexer(std::string_view source) : source_(normalize_newlines(source)), rest_(source_) {}

  std::vector<Token> run() {
    while (at_ < source_.size()) text_until_tag();
    add(TokenKind::kEnd, {});
    return std::move(tokens_);
  }

 private:
  [[noreturn]] void fail(const std::string& message) const { throw TemplateError(message, line_); }

  void add(TokenKind kind, std::string text) {
    tokens_.push_back({.kind = kind, .line = line_, .text = std::move(text)});
  }

  bool at(std::string_view text) const { return rest_.substr(at_, text.size()) == text; }

  /// Moves on by `bytes`, counting lines.
  void advance(size_t bytes) {
    const std::string_view passed = rest_.substr(at_, bytes);
    line_ += static_cast<int>(std::count(passed.begin(), passed.end(), '\n'));
    if (!passed.empty()) line_starting_ = passed.back() == '\n';
    at_ += passed.size();
  }

  void skip_space() { advance(strip_range(rest_.substr(at_), std::nullopt, true, false).first); }

  /// After an end tag: nothing, one newline or all white space goes with it.
  void finish_tag(std::string_view tag, char sign, bool trim_newline) {
    advance(tag.size());
    if (sign == '-') {
      skip_space();
    } else if (trim_newline && sign != '+' && at("\n")) {
      advance(1);
    }
  }

  /// Adds the literal text [begin, end) before a tag of kind `second`, cut as the tag's sign asks.
  void add_data(size_t begin, size_t end, char second, char sign, bool starts_line) {
    std::string_view text = rest_.substr(begin, end - begin);
    if (sign == '-') {
      text = text.substr(0, strip_range(text, std::nullopt, false, true).second);
    } else if (sign != '+' && second != '{') {  // lstrip_blocks: blocks and comments only
      const size_t newline = text.rfind('\n');
      const size_t line_begin = newline == npos ? 0 : newline + 1;
      if ((line_begin > 0 || starts_line) && is_blank(text.substr(line_begin))) text = text.substr(0, line_begin);
    }
    if (!text.empty()) add(TokenKind::kData, std::string(text));
  }

  char sign_at(size_t offset) const {
    const char c = offset < source_.size() ? source_[offset] : '\0';
    return c == '-' || c == '+' ? c : '\0';
  }

  void text_until_tag() {
    const size_t begin = at_;
    size_t tag = begin;
    for (;; ++tag) {
      tag = source_.find('{', tag);
      if (tag == npos || tag + 1 >= source_.size()) {
        add(TokenKind::kData, std::string(rest_.substr(begin)));
        return advance(npos);
      }
      const char second = source_[tag + 1];
      if (second == '{' || second == '%' || second == '#') break;
    }
    const char second = source_[tag + 1];
    const char sign = sign_at(tag + 2);
    add_data(begin, tag, second, sign, line_starting_);
    advance(tag + 2 + (sign ? 1 : 0) - begin);
    if (second == '#') {
      comment();
    } else if (second == '{') {
      add(TokenKind::kVariableBegin, "{{");
      tag_tokens("}}", TokenKind::kVariableEnd);
    } else if (!raw()) {
      add(TokenKind::kBlockBegin, "{%");
      tag_tokens("%}", TokenKind::kBlockEnd);
    }
  }

  void comment() {
    const size_t end = source_.find("#}", at_);
    if (end == npos) fail("Missing end of comment tag");
    const char sign = end > at_ ? sign_at(end - 1) : '\0';
    advance(end - at_);
    finish_tag("#}", sign, true);
  }

  /// Length of `\s*word\s*` followed by an end of block tag at `from`, without that tag; nullopt if not there.
  std::optional<size_t> lone_word(size_t from, std::string_view word) const {
    size_t at = from + strip_range(rest_.substr(from), std::nullopt, true, false).first;
    if (rest_.substr(at, word.size()) != word) return std::nullopt;
    at += word.size();
    at += strip_range(rest_.substr(at), std::nullopt, true, false).first;
    const bool ends = rest_.substr(at, 2) == "%}" || rest_.substr(at, 3) == "-%}" ||
                      (word == "endraw" && rest_.substr(at, 3) == "+%}");
    return ends ? std::optional(at - from) : std::nullopt;
  }

  /// At the inside of a block tag: takes a whole raw block, if it is one.
  bool raw() {
    const std::optional<size_t> word = lone_word(at_, "raw");
    if (!word) return false;
    advance(*word);
    const char begin_sign = sign_at(at_);
    if (begin_sign) advance(1);
    finish_tag("%}", begin_sign, false);
    const size_t begin = at_;
    const bool starts_line = line_starting_;
    for (size_t tag = source_.find("{%", begin); tag != npos; tag = source_.find("{%", tag + 1)) {
      const char sign = sign_at(tag + 2);
      const size_t inside = tag + 2 + (sign ? 1 : 0);
      const std::optional<size_t> end_word = lone_word(inside, "endraw");
      if (!end_word) continue;
      add_data(begin, tag, '%', sign, starts_line);
      advance(inside + *end_word - begin);
      const char end_sign = sign_at(at_);
      if (end_sign) advance(1);
      finish_tag("%}", end_sign, true);
      return true;
    }
    fail("Missing end of raw directive");
  }

  /// Tokens inside {{ }} or {% %}, up to and with the end tag.
  void tag_tokens(std::string_view end_tag, TokenKind end_kind) {
    std::string open;  // brackets not yet closed, by their closing character
    while (true) {
      skip_space();
      if (at_ >= source_.size()) fail(fmt::format("unexpected end of template, expected '{}'", end_tag));
      if (open.empty()) {
        const char sign = sign_at(at_);
        const bool signed_end = sign != '\0' && rest_.substr(at_ + 1, 2) == end_tag;
        if (at(end_tag) || (signed_end && (sign == '-' || end_kind == TokenKind::kBlockEnd))) {
          add(end_kind, std::string(end_tag));
          if (signed_end) advance(1);
          return finish_tag(end_tag, signed_end ? sign : '\0', end_kind == TokenKind::kBlockEnd);
        }
      }
      expression_token(open);
    }
  }

  void expression_token(std::string& open) {
    const char c = source_[at_];
    if (is_digit(c)) return number();
    if (is_name_byte(c)) return name();
    if (c == '"' || c == '\'') return string();
    constexpr std::string_view kLong[] = {"//", "**", "==", "!=", ">=", "<="};
    constexpr std::string_view kShort = "+-/*%~[](){}><=.:|,;";
    size_t length = kShort.find(c) != npos ? 1 : 0;
    for (const std::string_view op : kLong) {
      if (at(op)) length = 2;
    }
    if (length == 0) {
      fail(fmt::format("unexpected character '{}'",
                       quant::printable(rest_.substr(at_, code_point_at(rest_, at_).length))));
    }
    if (c == '{' || c == '(' || c == '[') open += c == '{' ? '}' : c == '(' ? ')' : ']';
    if (c == '}' || c == ')' || c == ']') {
      if (open.empty()) fail(fmt::format("unexpected '{}'", c));
      if (open.back() != c) fail(fmt::format("unexpected '{}', expected '{}'", c, open.back()));
      open.pop_back();
    }
    add(TokenKind::kOperator, std::string(rest_.substr(at_, length)));
    advance(length);
  }

  void name() {
    size_t length = 1;
    while (at_ + length < source_.size() && (is_name_byte(source_[at_ + length]) || is_digit(source_[at_ + length]))) {
      ++length;
    }
    if (length > kMaxNameBytes) fail("a name is too long");
    add(TokenKind::kName, std::string(rest_.substr(at_, length)));
    advance(length);
  }

  void number() {
    const bool after_dot = at_ > 0 && source_[at_ - 1] == '.';
    const NumberLiteral literal = scan_number(rest_.substr(at_), !after_dot, line_);
    add(literal.is_float ? TokenKind::kFloat : TokenKind::kInteger, std::string(rest_.substr(at_, literal.bytes)));
    tokens_.back().integer = literal.integer;
    tokens_.back().real = literal.real;
    advance(literal.bytes);
  }

  void string() {
    size_t end = at_ + 1;
    while (end < source_.size() && source_[end] != source_[at_]) end += source_[end] == '\\' ? 2 : 1;
    if (end >= source_.size()) fail("a string is not closed");
    add(TokenKind::kString, unescape_string(rest_.substr(at_ + 1, end - at_ - 1), line_));
    advance(end + 1 - at_);
  }

  std::string source_;
  std::string_view rest_;  ///< source_ as a view: all offsets count from its start
  size_t at_ = 0;
  int line_ = 1;
  bool line_starting_ = true;  ///< what was passed last ended a line
  std::vector<Token> tokens_;
};

}  // namespace

std::vector<Token> tokenize(std::string_view source) {
  return Lexer(source).run();
}

}  // namespace moraine::runtime::jinja
