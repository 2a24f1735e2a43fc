// The inner levels of jinja_expression_parser.h: operands with what follows them (subscripts, calls, filters, tests),
// and what is built of names alone (targets, parameters).
#include <fmt/format.h>

#include "runtime/jinja_expression_parser.h"

namespace moraine::runtime::jinja {
namespace {

Value text_constant(std::string text) {
  return std::make_shared<const Text>(Text(std::move(text), true));
}

}  // namespace

ExpressionPtr ExpressionParser::unary(bool with_filters) {
  const int line = current().line;
  ExpressionPtr node;
  if (current().is_operator("-") || current().is_operator("+")) {
    const Nesting nesting(*this);
    const bool negative = take().text == "-";
    node = make(Sign{negative, unary(false)}, line);
  } else {
    node = primary();
  }
  node = postfix(std::move(node));
  return with_filters ? filters_and_tests(std::move(node)) : std::move(node);
}

ExpressionPtr ExpressionParser::primary() {
  const int line = current().line;
  if (current().kind == TokenKind::kName) return name_or_constant();
  if (current().kind == TokenKind::kInteger) return make(Literal{take().integer}, line);
  if (current().kind == TokenKind::kFloat) return make(Literal{take().real}, line);
  if (current().kind == TokenKind::kString) {
    std::string text;  // neighbouring strings are one, as in Python
    while (current().kind == TokenKind::kString) text += take().text;
    return make(Literal{text_constant(std::move(text))}, line);
  }
  if (skip_operator("(")) {
    ExpressionPtr node = tuple(true, true);
    expect_operator(")");
    return node;
  }
  if (skip_operator("[")) return list_literal();
  if (skip_operator("{")) return dict_literal();
  fail_unexpected();
}

ExpressionPtr ExpressionParser::name_or_constant() {
  const int line = current().line;
  std::string name = take().text;
  if (name == "true" || name == "True") return make(Literal{true}, line);
  if (name == "false" || name == "False") return make(Literal{false}, line);
  if (name == "none" || name == "None") return make(Literal{None{}}, line);
  if (macro_depth_ > 0 && (name == "varargs" || name == "kwargs")) {
    throw TemplateError(fmt::format("'{}' in a macro is not supported", name), line);
  }
  return make(Name{std::move(name)}, line);
}

ExpressionPtr ExpressionParser::list_literal() {
  const int line = current().line;
  ListLiteral node{ListKind::kList, {}};
  while (!current().is_operator("]")) {
    if (!node.items.empty()) expect_operator(",");
    if (current().is_operator("]")) break;
    node.items.push_back(expression());
  }
  expect_operator("]");
  return make(std::move(node), line);
}

ExpressionPtr ExpressionParser::dict_literal() {
  const int line = current().line;
  DictLiteral node;
  while (!current().is_operator("}")) {
    if (!node.items.empty()) expect_operator(",");
    if (current().is_operator("}")) break;
    ExpressionPtr key = expression();
    expect_operator(":");
    node.items.emplace_back(std::move(key), expression());
  }
  expect_operator("}");
  return make(std::move(node), line);
}

bool ExpressionParser::at_tuple_end() const {
  return current().kind == TokenKind::kVariableEnd || current().kind == TokenKind::kBlockEnd ||
         current().is_operator(")");
}

ExpressionPtr ExpressionParser::tuple(bool with_conditional, bool in_brackets) {
  const int line = current().line;
  ListLiteral node{ListKind::kTuple, {}};
  bool has_comma = false;
  while (!at_tuple_end() && !(has_comma && current().is_name("recursive"))) {
    node.items.push_back(expression(with_conditional));
    if (!skip_operator(",")) break;
    has_comma = true;
  }
  if (!has_comma && !node.items.empty()) return std::move(node.items[0]);
  if (!has_comma && !in_brackets) fail_unexpected("an expression");
  return make(std::move(node), line);
}

ExpressionPtr ExpressionParser::postfix(ExpressionPtr node) {
  while (true) {
    if (current().is_operator(".") || current().is_operator("[")) {
      node = subscript_of(std::move(node));
    } else if (current().is_operator("(")) {
      node = call_of(std::move(node));
    } else {
      return node;
    }
  }
}

ExpressionPtr ExpressionParser::filters_and_tests(ExpressionPtr node) {
  while (true) {
    if (current().is_operator("|")) {
      node = filters(std::move(node));
    } else if (current().is_name("is")) {
      node = test_of(std::move(node));
    } else if (current().is_operator("(")) {
      node = call_of(std::move(node));
    } else {
      return node;
    }
  }
}

ExpressionPtr ExpressionParser::subscript_of(ExpressionPtr object) {
  const int line = current().line;
  if (skip_operator(".")) {
    if (current().kind == TokenKind::kName) return make(GetAttribute{std::move(object), take().text}, line);
    if (current().kind != TokenKind::kInteger) fail_unexpected("a name or number");
    return make(GetItem{std::move(object), make(Literal{take().integer}, line)}, line);
  }
  expect_operator("[");
  GetSlice slice;
  if (!current().is_operator(":")) slice.start = expression();
  if (skip_operator("]")) return make(GetItem{std::move(object), std::move(slice.start)}, line);
  if (current().is_operator(",")) fail("several subscripts are not supported");
  const auto at_bound = [&] { return !current().is_operator(":") && !current().is_operator("]"); };
  expect_operator(":");
  if (at_bound()) slice.stop = expression();
  if (skip_operator(":") && at_bound()) slice.step = expression();
  expect_operator("]");
  slice.object = std::move(object);
  return make(std::move(slice), line);
}

CallArguments ExpressionParser::call_arguments() {
  CallArguments arguments;
  expect_operator("(");
  while (!current().is_operator(")")) {
    if (!arguments.positional.empty() || !arguments.keyword.empty()) {
      expect_operator(",");
      if (current().is_operator(")")) break;
    }
    if (arguments.positional.size() + arguments.keyword.size() >= kMaxArguments) fail("too many arguments");
    if (current().is_operator("*") || current().is_operator("**")) fail("* and ** in a call are not supported");
    if (current().kind == TokenKind::kName && ahead().is_operator("=")) {
      std::string name = take().text;
      take();
      arguments.keyword.emplace_back(std::move(name), expression());
    } else {
      if (!arguments.keyword.empty()) fail("an argument without a name follows one with a name");
      arguments.positional.push_back(expression());
    }
  }
  expect_operator(")");
  return arguments;
}

ExpressionPtr ExpressionParser::call_of(ExpressionPtr callee) {
  const int line = current().line;
  return make(Call{std::move(callee), call_arguments()}, line);
}

ExpressionPtr ExpressionParser::filters(ExpressionPtr input) {
  while (skip_operator("|")) input = filter(std::move(input));
  return input;
}

ExpressionPtr ExpressionParser::filter(ExpressionPtr input) {
  const int line = current().line;
  std::string name = expect_name();
  while (skip_operator(".")) name += "." + expect_name();
  const FilterFunction function = find_filter(name);
  if (!function) throw TemplateError(fmt::format("the filter '{}' is not supported", name), line);
  CallArguments arguments;
  if (current().is_operator("(")) arguments = call_arguments();
  return make(ApplyFilter{std::move(input), function, std::move(arguments)}, line);
}

ExpressionPtr ExpressionParser::test_of(ExpressionPtr input) {
  const int line = take().line;  // is
  const bool negated = skip_name("not");
  std::string name = expect_name();
  while (skip_operator(".")) name += "." + expect_name();
  const TestFunction function = find_test(name);
  if (!function) throw TemplateError(fmt::format("the test '{}' is not supported", name), line);

  CallArguments arguments;
  const Token& next = current();
  const bool at_operand = next.kind == TokenKind::kName || next.kind == TokenKind::kString ||
                          next.kind == TokenKind::kInteger || next.kind == TokenKind::kFloat || next.is_operator("[") ||
                          next.is_operator("{");
  if (next.is_operator("(")) {
    arguments = call_arguments();
  } else if (at_operand && !next.is_name("else") && !next.is_name("or") && !next.is_name("and")) {
    if (next.is_name("is")) fail("You cannot chain multiple tests with is");
    arguments.positional.push_back(postfix(primary()));
  }
  ExpressionPtr node = make(ApplyTest{std::move(input), function, std::move(arguments)}, line);
  return negated ? make(Not{std::move(node)}, line) : std::move(node);
}

Target ExpressionParser::single_target(bool allow_namespace) {
  const Nesting nesting(*this);
  Target result;
  if (skip_operator("(")) {
    result = target(allow_namespace);
    expect_operator(")");
    return result;
  }
  result.name = expect_name();
  for (const std::string_view constant : {"true", "false", "none", "True", "False", "None"}) {
    if (result.name == constant) fail(fmt::format("can't assign to '{}'", constant));
  }
  if (allow_namespace && skip_operator(".")) result.attribute = expect_name();
  return result;
}

Target ExpressionParser::target(bool allow_namespace) {
  Target first = single_target(allow_namespace);
  if (!current().is_operator(",")) return first;
  Target result;
  result.is_tuple = true;
  result.items.push_back(std::move(first));
  while (skip_operator(",")) {
    if (at_tuple_end() || current().is_name("in") || current().is_operator("=")) break;
    result.items.push_back(single_target(allow_namespace));
  }
  return result;
}

std::vector<Parameter> ExpressionParser::parameters() {
  std::vector<Parameter> result;
  expect_operator("(");
  while (!current().is_operator(")")) {
    if (!result.empty()) expect_operator(",");
    Parameter parameter{expect_name(), nullptr};
    if (skip_operator("=")) {
      parameter.default_value = expression();
    } else if (!result.empty() && result.back().default_value) {
      fail("non-default argument follows default argument");
    }
    if (result.size() >= kMaxArguments) fail("too many parameters");
    result.push_back(std::move(parameter));
  }
  expect_operator(")");
  return result;
}

}  // namespace moraine::runtime::jinja
