#pragma once

#include <string>
#include <utility>
#include <vector>

#include "runtime/jinja_ast.h"
#include "runtime/jinja_functions.h"
#include "runtime/jinja_scope.h"
#include "runtime/jinja_value.h"

namespace moraine::runtime::jinja {

/// Renders a parsed template once. Statements are in jinja_eval.cpp, expressions in jinja_eval_expression.cpp.
class Evaluator {
 public:
  /// `heap` and the template must outlive the evaluator; `variables` are what the template sees at first.
  Evaluator(Heap& heap, Clock clock, const std::vector<std::pair<std::string, Value>>& variables);

  /// The text the template prints. Throws TemplateError with the line in the template, also when a limit of the heap's
  /// budget is passed.
  Text render(const Block& block);

 private:
  enum class Flow { kNext, kBreak, kContinue };

  /// Opens a scope inside the current one (or inside `parent`) while it lives.
  class ScopeGuard;
  /// Redirects the output into a text of its own while it lives.
  class Capture;
  /// Counts one level of recursion while it lives.
  class DepthGuard;

  Flow run(const Block& block);
  Flow run(const Output& node);
  Flow run(const If& node);
  Flow run(const For& node);
  Flow run(const Set& node);
  Flow run(const SetBlock& node);
  Flow run(const DefineMacro& node);
  Flow run(const CallBlock& node);
  Flow run(const FilterBlock& node);
  Flow run(const With& node);
  Flow run(const Generation& node);
  Flow run(const Break&) { return Flow::kBreak; }
  Flow run(const Continue&) { return Flow::kContinue; }

  void print(const Value& value);
  void assign(const Target& target, const Value& value);
  /// Items of a loop, those that pass its condition.
  const List* loop_items(const For& node);
  /// Keeps the current scopes for a macro that may outlive them.
  void capture_scope();
  /// What a block prints, in a scope of its own.
  Value block_text(const Block& block);

  Value evaluate(const Expression& expression);
  Value evaluate(const Literal& node) { return node.value; }
  Value evaluate(const Name& node);
  Value evaluate(const GetAttribute& node);
  Value evaluate(const GetItem& node);
  Value evaluate(const GetSlice& node);
  Value evaluate(const Call& node);
  Value evaluate(const ApplyFilter& node);
  Value evaluate(const ApplyTest& node);
  Value evaluate(const Not& node);
  Value evaluate(const Sign& node);
  Value evaluate(const Logical& node);
  Value evaluate(const Arithmetic& node);
  Value evaluate(const Concatenation& node);
  Value evaluate(const Comparison& node);
  Value evaluate(const Conditional& node);
  Value evaluate(const ListLiteral& node);
  Value evaluate(const DictLiteral& node);
  Arguments evaluate(const CallArguments& arguments);
  /// A filter or chain of filters with null input, applied to the text of a block.
  Value filter_text(const Expression& filters, const Value& text);

  Value call(const Value& callee, const Arguments& arguments);
  Value call_expression(const Call& node, const Value* caller);
  Value call_macro(const Callable& callable, const Arguments& arguments);
  void bind_parameters(const Macro& macro, const Arguments& arguments);

  Heap& heap_;
  Clock clock_;
  ScopePool scopes_;
  Scope* scope_;
  Text* out_ = nullptr;
  const Value* block_text_ = nullptr;  ///< input of the filters of a filter or set block
  int line_ = 0;                       ///< of what is being evaluated, for messages
  int depth_ = 0;
  int macro_depth_ = 0;
  int loop_depth_ = 0;
};

}  // namespace moraine::runtime::jinja
