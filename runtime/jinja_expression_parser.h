#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "runtime/jinja_ast.h"
#include "runtime/jinja_lexer.h"

namespace moraine::runtime::jinja {

/// Brackets, unary operators, conditional expressions and statements inside each other.
inline constexpr int kMaxSyntaxDepth = 100;
/// Height of an expression's tree; one level of brackets can add several.
inline constexpr int kMaxTreeHeight = 200;

/// Of one call, and parameters of one macro.
inline constexpr size_t kMaxArguments = 255;

/// Recursive descent over the tokens of a template, for expressions; jinja_parser.cpp adds the statements. Operators
/// are in jinja_expression_parser.cpp, operands in jinja_operand_parser.cpp. Precedence and quirks are those of
/// Jinja2 3.1. Every method throws TemplateError with a line.
class ExpressionParser {
 public:
  explicit ExpressionParser(std::vector<Token> tokens) : tokens_(std::move(tokens)) {}

 protected:
  /// Counts one level of nesting while it lives.
  class Nesting {
   public:
    explicit Nesting(ExpressionParser& parser);
    ~Nesting() { --parser_.depth_; }
    Nesting(const Nesting&) = delete;
    Nesting& operator=(const Nesting&) = delete;

   private:
    ExpressionParser& parser_;
  };

  const Token& current() const { return tokens_[at_]; }
  const Token& ahead() const { return tokens_[at_ + 1 < tokens_.size() ? at_ + 1 : at_]; }
  Token take();
  bool skip_operator(std::string_view op);
  bool skip_name(std::string_view name);
  void expect_operator(std::string_view op);
  void expect_kind(TokenKind kind, std::string_view description);
  std::string expect_name();
  [[noreturn]] void fail(const std::string& message) const;
  [[noreturn]] void fail_unexpected(std::string_view expected = {}) const;

  /// An expression, with or without a trailing `a if b else c`.
  ExpressionPtr expression(bool with_conditional = true);
  /// One expression, or several with commas: a tuple.
  ExpressionPtr tuple(bool with_conditional = true, bool in_brackets = false);
  /// | filter | filter …; the first filter's input is `input` (null: the block's text).
  ExpressionPtr filters(ExpressionPtr input);
  /// One filter without its bar.
  ExpressionPtr filter(ExpressionPtr input);
  /// Left side of set, for and with.
  Target target(bool allow_namespace);
  /// (a, b=1): parameters of a macro or call block.
  std::vector<Parameter> parameters();

  int macro_depth_ = 0;  ///< macros and call blocks around the current token

 private:
  ExpressionPtr make(decltype(Expression::node) node, int line);
  ExpressionPtr conditional();
  ExpressionPtr logical(bool is_and);
  ExpressionPtr negation();
  ExpressionPtr comparison();
  ExpressionPtr sum();
  ExpressionPtr concatenation();
  ExpressionPtr product();
  ExpressionPtr power();
  ExpressionPtr unary(bool with_filters);
  ExpressionPtr primary();
  ExpressionPtr name_or_constant();
  ExpressionPtr postfix(ExpressionPtr node);
  ExpressionPtr filters_and_tests(ExpressionPtr node);
  ExpressionPtr subscript_of(ExpressionPtr object);
  ExpressionPtr call_of(ExpressionPtr callee);
  ExpressionPtr test_of(ExpressionPtr input);
  ExpressionPtr list_literal();
  ExpressionPtr dict_literal();
  CallArguments call_arguments();
  Target single_target(bool allow_namespace);
  bool at_tuple_end() const;

  std::vector<Token> tokens_;
  size_t at_ = 0;
  int depth_ = 0;
};

}  // namespace moraine::runtime::jinja
