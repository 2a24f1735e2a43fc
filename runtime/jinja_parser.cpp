#include "runtime/jinja_parser.h"

#include <fmt/format.h>

#include <initializer_list>

#include "quant/error.h"
#include "runtime/jinja_expression_parser.h"

namespace moraine::runtime::jinja {
namespace {

using EndWords = std::initializer_list<std::string_view>;

class StatementParser : public ExpressionParser {
 public:
  using ExpressionParser::ExpressionParser;

  Block whole_template() {
    Block block = statements({});
    expect_kind(TokenKind::kEnd, "end of template");
    return block;
  }

 private:
  bool at_any(EndWords words) const {
    for (const std::string_view word : words) {
      if (current().is_name(word)) return true;
    }
    return false;
  }

  /// Statements up to a block tag that starts with one of `end_words` (left as the current token), or to the end.
  Block statements(EndWords end_words) {
    const Nesting nesting(*this);
    Block block;
    while (current().kind != TokenKind::kEnd) {
      const int line = current().line;
      if (current().kind == TokenKind::kData) {
        block.push_back({Output{data()}, line});
      } else if (current().kind == TokenKind::kVariableBegin) {
        take();
        block.push_back({Output{tuple()}, line});
        expect_kind(TokenKind::kVariableEnd, "'}}'");
      } else {
        expect_kind(TokenKind::kBlockBegin, "a tag");
        if (at_any(end_words)) return block;
        statement(block);
        expect_kind(TokenKind::kBlockEnd, "'%}'");
      }
    }
    if (end_words.size() > 0) fail(fmt::format("unexpected end of template, expected '{}'", *(end_words.end() - 1)));
    return block;
  }

  ExpressionPtr data() {
    const int line = current().line;
    Value text = std::make_shared<const Text>(Text(take().text, true));
    return std::make_unique<Expression>(Expression{Literal{std::move(text)}, line, 1});
  }

  /// The rest of a start tag, then the block up to one of `end_words`.
  Block body(EndWords end_words) {
    skip_operator(":");
    expect_kind(TokenKind::kBlockEnd, "'%}'");
    return statements(end_words);
  }

  /// body() with the one end word taken.
  Block whole_body(std::string_view end_word) {
    Block block = body({end_word});
    take();
    return block;
  }

  void statement(Block& block) {
    const int line = current().line;
    const std::string tag = expect_name();
    if (tag == "if") return block.push_back({if_statement(), line});
    if (tag == "for") return block.push_back({for_statement(), line});
    if (tag == "set") return set_statement(block, line);
    if (tag == "macro") return block.push_back({macro_statement(), line});
    if (tag == "call") return block.push_back({call_statement(), line});
    if (tag == "filter") return block.push_back({filter_statement(), line});
    if (tag == "with") return block.push_back({with_statement(), line});
    if (tag == "generation") return block.push_back({Generation{outside_loops("endgeneration")}, line});
    if (tag == "break" || tag == "continue") {
      if (loop_depth_ == 0) throw TemplateError(fmt::format("'{}' outside of a loop", tag), line);
      if (tag == "break") return block.push_back({Break{}, line});
      return block.push_back({Continue{}, line});
    }
    for (const std::string_view known : {"block", "extends", "include", "import", "from", "autoescape", "do", "print",
                                         "trans", "pluralize", "debug"}) {
      if (tag == known) throw TemplateError(fmt::format("the tag '{}' is not supported", tag), line);
    }
    throw TemplateError(fmt::format("unknown tag '{}'", quant::printable(tag)), line);
  }

  If if_statement() {
    If node;
    while (true) {
      ExpressionPtr test = tuple(false);
      node.branches.emplace_back(std::move(test), body({"elif", "else", "endif"}));
      const std::string word = take().text;
      if (word == "else") node.otherwise = whole_body("endif");
      if (word != "elif") return node;
    }
  }

  For for_statement() {
    For node;
    node.target = target(false);
    if (!skip_name("in")) fail_unexpected("'in'");
    node.iterable = tuple(false);
    if (skip_name("if")) node.condition = expression();
    if (current().is_name("recursive")) fail("recursive loops are not supported");
    ++loop_depth_;
    node.body = body({"else", "endfor"});
    --loop_depth_;
    if (take().text == "else") node.otherwise = whole_body("endfor");
    return node;
  }

  void set_statement(Block& block, int line) {
    Target left = target(true);
    if (skip_operator("=")) return block.push_back({Set{std::move(left), tuple()}, line});
    SetBlock node{std::move(left), nullptr, {}};
    if (current().is_operator("|")) node.filter = filters(nullptr);
    node.body = outside_loops("endset");
    block.push_back({std::move(node), line});
  }

  /// A body that is rendered apart: break and continue can't leave it.
  Block outside_loops(std::string_view end_word) {
    const int outer = std::exchange(loop_depth_, 0);
    Block block = whole_body(end_word);
    loop_depth_ = outer;
    return block;
  }

  Block macro_body(std::string_view end_word) {
    ++macro_depth_;
    Block block = outside_loops(end_word);
    --macro_depth_;
    return block;
  }

  DefineMacro macro_statement() {
    auto macro = std::make_unique<Macro>();
    macro->name = expect_name();
    macro->parameters = parameters();
    macro->body = macro_body("endmacro");
    return {std::move(macro)};
  }

  CallBlock call_statement() {
    auto caller = std::make_unique<Macro>();
    caller->name = "caller";
    if (current().is_operator("(")) caller->parameters = parameters();
    ExpressionPtr call = expression();
    if (!std::holds_alternative<Call>(call->node)) fail("expected a call");
    caller->body = macro_body("endcall");
    return {std::move(caller), std::move(call)};
  }

  FilterBlock filter_statement() {
    ExpressionPtr chain = filters(filter(nullptr));
    return {std::move(chain), outside_loops("endfilter")};
  }

  With with_statement() {
    With node;
    while (current().kind != TokenKind::kBlockEnd) {
      if (!node.variables.empty()) expect_operator(",");
      Target left = target(false);
      expect_operator("=");
      node.variables.emplace_back(std::move(left), expression());
    }
    node.body = whole_body("endwith");
    return node;
  }

  int loop_depth_ = 0;  ///< loops around the current token that break and continue may leave
};

}  // namespace

Block parse_template(std::string_view source) {
  if (source.size() > kMaxTemplateBytes) {
    throw TemplateError(fmt::format("the template is too long ({} bytes)", source.size()));
  }
  return StatementParser(tokenize(source)).whole_template();
}

}  // namespace moraine::runtime::jinja
