// The expressions of jinja_eval.h.
#include <fmt/format.h>

#include <algorithm>

#include "runtime/jinja_eval.h"
#include "runtime/jinja_eval_guards.h"
#include "runtime/jinja_format.h"
#include "runtime/jinja_methods.h"
#include "runtime/jinja_operators.h"

namespace moraine::runtime::jinja {

Value Evaluator::evaluate(const Expression& expression) {
  const DepthGuard guard(*this);
  heap_.budget().step();
  line_ = expression.line;
  return std::visit([this](const auto& node) { return evaluate(node); }, expression.node);
}

Value Evaluator::evaluate(const Name& node) {
  if (const Value* found = ScopePool::find(scope_, node.name)) return *found;
  if (is_function(node.name)) return heap_.callable({.name = node.name, .receiver = None{}});
  return heap_.undefined(fmt::format("'{}' is undefined", node.name));
}

Value Evaluator::evaluate(const GetAttribute& node) {
  return attribute(heap_, evaluate(*node.object), node.name);
}

Value Evaluator::evaluate(const GetItem& node) {
  const Value object = evaluate(*node.object);
  return subscript(heap_, object, evaluate(*node.index));
}

Value Evaluator::evaluate(const GetSlice& node) {
  const auto bound = [this](const ExpressionPtr& expression) {
    return expression ? std::optional(evaluate(*expression)) : std::nullopt;
  };
  const Value object = evaluate(*node.object);
  const std::optional<Value> start = bound(node.start), stop = bound(node.stop), step = bound(node.step);
  return slice(heap_, object, start, stop, step);
}

Arguments Evaluator::evaluate(const CallArguments& arguments) {
  Arguments result;
  for (const auto& expression : arguments.positional) result.positional.push_back(evaluate(*expression));
  for (const auto& [name, expression] : arguments.keyword) result.keyword.emplace_back(name, evaluate(*expression));
  return result;
}

Value Evaluator::evaluate(const Call& node) {
  return call_expression(node, nullptr);
}

Value Evaluator::call_expression(const Call& node, const Value* caller) {
  const auto* get = std::get_if<GetAttribute>(&node.callee->node);
  const Value object = get ? evaluate(*get->object) : evaluate(*node.callee);
  const int line = node.callee->line;
  if (get && !has_method(object, get->name)) {
    const Value callee = attribute(heap_, object, get->name);
    require_defined(callee);
  }
  Arguments arguments = evaluate(node.arguments);
  if (caller) arguments.keyword.emplace_back("caller", *caller);
  line_ = line;
  if (!get) return call(object, arguments);
  // A method is called without making a value of it first.
  if (has_method(object, get->name)) return call_method(heap_, object, get->name, arguments);
  return call(attribute(heap_, object, get->name), arguments);
}

Value Evaluator::call(const Value& callee, const Arguments& arguments) {
  require_defined(callee);
  const auto* held = std::get_if<Callable*>(&callee);
  if (!held) throw TemplateError(fmt::format("'{}' object is not callable", type_name(callee)), line_);
  const Callable& callable = **held;
  if (callable.macro) return call_macro(callable, arguments);
  if (!is_none(callable.receiver)) return call_method(heap_, callable.receiver, callable.name, arguments);
  return call_function(heap_, callable.name, arguments, clock_);
}

void Evaluator::bind_parameters(const Macro& macro, const Arguments& arguments) {
  const size_t count = macro.parameters.size();
  if (arguments.positional.size() > count) {
    throw TemplateError(fmt::format("macro '{}' takes not more than {} argument(s)", macro.name, count), line_);
  }
  std::vector<const Value*> given(count, nullptr);
  for (size_t i = 0; i < arguments.positional.size(); ++i) given[i] = &arguments.positional[i];
  for (const auto& [name, value] : arguments.keyword) {
    const auto found = std::find_if(macro.parameters.begin(), macro.parameters.end(),
                                    [&, &wanted = name](const Parameter& one) { return one.name == wanted; });
    if (found != macro.parameters.end()) {
      const Value*& place = given[static_cast<size_t>(found - macro.parameters.begin())];
      if (place) throw TemplateError(fmt::format("macro '{}' got argument '{}' twice", macro.name, name), line_);
      place = &value;
    } else if (name == "caller") {
      scope_->names.insert_or_assign(name, value);
    } else {
      throw TemplateError(fmt::format("macro '{}' takes no keyword argument '{}'", macro.name, name), line_);
    }
  }
  for (size_t i = 0; i < count; ++i) {
    const Parameter& parameter = macro.parameters[i];
    Value value = given[i] ? *given[i]
                  : parameter.default_value
                      ? evaluate(*parameter.default_value)
                      : heap_.undefined(fmt::format("parameter '{}' was not provided", parameter.name));
    scope_->names.insert_or_assign(parameter.name, std::move(value));
  }
}

Value Evaluator::call_macro(const Callable& callable, const Arguments& arguments) {
  const DepthGuard guard(*this);
  if (macro_depth_ >= heap_.budget().limits().max_macro_depth) {
    throw TemplateError("macros call each other too deeply", line_);
  }
  ++macro_depth_;
  const int outer_loops = std::exchange(loop_depth_, 0);
  Capture capture(*this);
  {
    const ScopeGuard scope(*this, callable.closure);
    bind_parameters(*callable.macro, arguments);
    run(callable.macro->body);
  }
  loop_depth_ = outer_loops;
  --macro_depth_;
  return heap_.text(capture.take());
}

Value Evaluator::evaluate(const ApplyFilter& node) {
  const int line = line_;
  const Value input = node.input ? evaluate(*node.input) : *block_text_;
  const Arguments arguments = evaluate(node.arguments);
  line_ = line;
  return node.filter(heap_, input, arguments);
}

Value Evaluator::evaluate(const ApplyTest& node) {
  const Value input = evaluate(*node.input);
  return node.test(heap_, input, evaluate(node.arguments));
}

Value Evaluator::evaluate(const Not& node) {
  return !truthy(evaluate(*node.operand));
}

Value Evaluator::evaluate(const Sign& node) {
  const Value operand = evaluate(*node.operand);
  if (node.negative) return negate(operand);
  return negate(negate(operand));  // the same demands on the type
}

Value Evaluator::evaluate(const Logical& node) {
  Value value = None{};
  for (const ExpressionPtr& operand : node.operands) {
    value = evaluate(*operand);
    if (truthy(value) != node.is_and) break;
  }
  return value;
}

Value Evaluator::evaluate(const Arithmetic& node) {
  const int line = line_;
  Value value = evaluate(*node.first);
  for (const auto& [op, operand] : node.rest) {
    const Value right = evaluate(*operand);
    line_ = line;
    value = arithmetic(heap_, op, value, right);
  }
  return value;
}

Value Evaluator::evaluate(const Concatenation& node) {
  std::vector<Value> parts;
  for (const ExpressionPtr& operand : node.operands) parts.push_back(to_text(heap_, evaluate(*operand)));
  return join_texts(heap_, Text(), parts);
}

Value Evaluator::evaluate(const Comparison& node) {
  Value left = evaluate(*node.first);
  for (const auto& [op, operand] : node.rest) {
    Value right = evaluate(*operand);
    if (!compare(heap_, op, left, right)) return false;
    left = std::move(right);
  }
  return true;
}

Value Evaluator::evaluate(const Conditional& node) {
  if (truthy(evaluate(*node.test))) return evaluate(*node.yes);
  if (node.no) return evaluate(*node.no);
  return heap_.undefined("the inline if-expression evaluated to false and no else section was defined");
}

Value Evaluator::evaluate(const ListLiteral& node) {
  std::vector<Value> items;
  for (const ExpressionPtr& item : node.items) items.push_back(evaluate(*item));
  return heap_.list(std::move(items), node.kind);
}

Value Evaluator::evaluate(const DictLiteral& node) {
  Dict* dict = heap_.dict();
  for (const auto& [key_expression, value_expression] : node.items) {
    const Value key = evaluate(*key_expression);
    heap_.set(*dict, key, evaluate(*value_expression));
  }
  return dict;
}

}  // namespace moraine::runtime::jinja
