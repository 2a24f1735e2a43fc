#include "runtime/jinja_expression_parser.h"

#include <fmt/format.h>

#include <algorithm>
#include <optional>

#include "quant/error.h"

namespace moraine::runtime::jinja {
namespace {

/// Largest height of what a node refers to; one overload per shape of member.
class Height {
 public:
  void operator()(const ExpressionPtr& child) {
    if (child) height_ = std::max(height_, child->height);
  }
  void operator()(const CallArguments& arguments) {
    for (const auto& child : arguments.positional) (*this)(child);
    for (const auto& [name, child] : arguments.keyword) (*this)(child);
  }
  void operator()(const Literal&) {}
  void operator()(const Name&) {}
  void operator()(const GetAttribute& node) { (*this)(node.object); }
  void operator()(const GetItem& node) { (*this)(node.object), (*this)(node.index); }
  void operator()(const GetSlice& node) {
    (*this)(node.object), (*this)(node.start), (*this)(node.stop), (*this)(node.step);
  }
  void operator()(const Call& node) { (*this)(node.callee), (*this)(node.arguments); }
  void operator()(const ApplyFilter& node) { (*this)(node.input), (*this)(node.arguments); }
  void operator()(const ApplyTest& node) { (*this)(node.input), (*this)(node.arguments); }
  void operator()(const Not& node) { (*this)(node.operand); }
  void operator()(const Sign& node) { (*this)(node.operand); }
  void operator()(const Logical& node) { all(node.operands); }
  void operator()(const Arithmetic& node) { (*this)(node.first), all_second(node.rest); }
  void operator()(const Concatenation& node) { all(node.operands); }
  void operator()(const Comparison& node) { (*this)(node.first), all_second(node.rest); }
  void operator()(const Conditional& node) { (*this)(node.test), (*this)(node.yes), (*this)(node.no); }
  void operator()(const ListLiteral& node) { all(node.items); }
  void operator()(const DictLiteral& node) {
    for (const auto& [key, value] : node.items) (*this)(key), (*this)(value);
  }
  int value() const { return height_; }

 private:
  void all(const std::vector<ExpressionPtr>& children) {
    for (const auto& child : children) (*this)(child);
  }
  template <typename Pairs>
  void all_second(const Pairs& pairs) {
    for (const auto& [op, child] : pairs) (*this)(child);
  }

  int height_ = 0;
};

std::optional<CompareOp> compare_operator(const Token& token) {
  if (token.kind != TokenKind::kOperator) return std::nullopt;
  if (token.text == "==") return CompareOp::kEqual;
  if (token.text == "!=") return CompareOp::kNotEqual;
  if (token.text == "<") return CompareOp::kLess;
  if (token.text == "<=") return CompareOp::kLessEqual;
  if (token.text == ">") return CompareOp::kGreater;
  if (token.text == ">=") return CompareOp::kGreaterEqual;
  return std::nullopt;
}

std::string describe(const Token& token) {
  switch (token.kind) {
    case TokenKind::kEnd:
      return "end of template";
    case TokenKind::kData:
      return "text";
    case TokenKind::kString:
      return "a string";
    default:
      return fmt::format("'{}'", quant::printable(token.text, 60));
  }
}

}  // namespace

ExpressionParser::Nesting::Nesting(ExpressionParser& parser) : parser_(parser) {
  if (parser.depth_ >= kMaxSyntaxDepth) parser.fail("the template is nested too deeply");
  ++parser.depth_;
}

Token ExpressionParser::take() {
  Token token = tokens_[at_];
  if (at_ + 1 < tokens_.size()) ++at_;
  return token;
}

bool ExpressionParser::skip_operator(std::string_view op) {
  if (!current().is_operator(op)) return false;
  ++at_;
  return true;
}

bool ExpressionParser::skip_name(std::string_view name) {
  if (!current().is_name(name)) return false;
  ++at_;
  return true;
}

void ExpressionParser::expect_operator(std::string_view op) {
  if (!skip_operator(op)) fail_unexpected(op);
}

void ExpressionParser::expect_kind(TokenKind kind, std::string_view description) {
  if (current().kind != kind) fail_unexpected(description);
  if (kind != TokenKind::kEnd) ++at_;
}

std::string ExpressionParser::expect_name() {
  if (current().kind != TokenKind::kName) fail_unexpected("a name");
  return take().text;
}

void ExpressionParser::fail(const std::string& message) const {
  throw TemplateError(message, current().line);
}

void ExpressionParser::fail_unexpected(std::string_view expected) const {
  if (expected.empty()) fail("unexpected " + describe(current()));
  fail(fmt::format("expected {}, got {}", expected, describe(current())));
}

ExpressionPtr ExpressionParser::make(decltype(Expression::node) node, int line) {
  Height height;
  std::visit([&](const auto& inner) { height(inner); }, node);
  if (height.value() >= kMaxTreeHeight) throw TemplateError("an expression is nested too deeply", line);
  return std::make_unique<Expression>(Expression{std::move(node), line, height.value() + 1});
}

ExpressionPtr ExpressionParser::expression(bool with_conditional) {
  const Nesting nesting(*this);
  return with_conditional ? conditional() : logical(false);
}

ExpressionPtr ExpressionParser::conditional() {
  const int line = current().line;
  ExpressionPtr value = logical(false);
  while (skip_name("if")) {
    ExpressionPtr test = logical(false);
    ExpressionPtr no = skip_name("else") ? expression() : nullptr;
    value = make(Conditional{std::move(test), std::move(value), std::move(no)}, line);
  }
  return value;
}

ExpressionPtr ExpressionParser::logical(bool is_and) {
  const int line = current().line;
  const auto operand = [&] { return is_and ? negation() : logical(true); };
  ExpressionPtr first = operand();
  const std::string_view word = is_and ? "and" : "or";
  if (!current().is_name(word)) return first;
  Logical node{is_and, {}};
  node.operands.push_back(std::move(first));
  while (skip_name(word)) node.operands.push_back(operand());
  return make(std::move(node), line);
}

ExpressionPtr ExpressionParser::negation() {
  const int line = current().line;
  if (!skip_name("not")) return comparison();
  const Nesting nesting(*this);
  return make(Not{negation()}, line);
}

ExpressionPtr ExpressionParser::comparison() {
  const int line = current().line;
  ExpressionPtr first = sum();
  Comparison node;
  while (true) {
    if (const auto op = compare_operator(current())) {
      take();
      node.rest.emplace_back(*op, sum());
    } else if (skip_name("in")) {
      node.rest.emplace_back(CompareOp::kIn, sum());
    } else if (current().is_name("not") && ahead().is_name("in")) {
      take(), take();
      node.rest.emplace_back(CompareOp::kNotIn, sum());
    } else {
      break;
    }
  }
  if (node.rest.empty()) return first;
  node.first = std::move(first);
  return make(std::move(node), line);
}

ExpressionPtr ExpressionParser::sum() {
  const int line = current().line;
  ExpressionPtr first = concatenation();
  Arithmetic node;
  while (current().is_operator("+") || current().is_operator("-")) {
    const auto op = take().text == "+" ? ArithmeticOp::kAdd : ArithmeticOp::kSubtract;
    node.rest.emplace_back(op, concatenation());
  }
  if (node.rest.empty()) return first;
  node.first = std::move(first);
  return make(std::move(node), line);
}

ExpressionPtr ExpressionParser::concatenation() {
  const int line = current().line;
  ExpressionPtr first = product();
  if (!current().is_operator("~")) return first;
  Concatenation node;
  node.operands.push_back(std::move(first));
  while (skip_operator("~")) node.operands.push_back(product());
  return make(std::move(node), line);
}

ExpressionPtr ExpressionParser::product() {
  const int line = current().line;
  ExpressionPtr first = power();
  Arithmetic node;
  while (true) {
    ArithmeticOp op{};
    if (current().is_operator("*")) {
      op = ArithmeticOp::kMultiply;
    } else if (current().is_operator("/")) {
      op = ArithmeticOp::kDivide;
    } else if (current().is_operator("//")) {
      op = ArithmeticOp::kFloorDivide;
    } else if (current().is_operator("%")) {
      op = ArithmeticOp::kModulo;
    } else {
      break;
    }
    take();
    node.rest.emplace_back(op, power());
  }
  if (node.rest.empty()) return first;
  node.first = std::move(first);
  return make(std::move(node), line);
}

ExpressionPtr ExpressionParser::power() {
  const int line = current().line;
  ExpressionPtr first = unary(true);
  Arithmetic node;
  while (skip_operator("**")) node.rest.emplace_back(ArithmeticOp::kPower, unary(true));
  if (node.rest.empty()) return first;
  node.first = std::move(first);
  return make(std::move(node), line);
}

}  // namespace moraine::runtime::jinja
