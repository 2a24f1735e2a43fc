#include "runtime/jinja_eval.h"

#include <fmt/format.h>

#include "runtime/jinja_eval_guards.h"
#include "runtime/jinja_format.h"

namespace moraine::runtime::jinja {

Evaluator::Evaluator(Heap& heap, Clock clock, const std::vector<std::pair<std::string, Value>>& variables)
    : heap_(heap), clock_(std::move(clock)), scope_(scopes_.open(heap, nullptr)) {
  for (const auto& [name, value] : variables) scope_->names.insert_or_assign(name, value);
}

Text Evaluator::render(const Block& block) {
  try {
    Capture capture(*this);
    run(block);
    return capture.take();
  } catch (const TemplateError& error) {
    if (error.line() > 0) throw;
    throw TemplateError(error.what(), line_);
  }
}

Evaluator::Flow Evaluator::run(const Block& block) {
  const DepthGuard guard(*this);
  for (const Statement& statement : block) {
    heap_.budget().step();
    line_ = statement.line;
    const Flow flow = std::visit([this](const auto& node) { return run(node); }, statement.node);
    if (flow != Flow::kNext) return flow;
  }
  return Flow::kNext;
}

void Evaluator::print(const Value& value) {
  if (is_undefined(value)) return;
  const Value held = to_text(heap_, value);
  const Text& text = *as_text(held);
  heap_.budget().check_text(out_->size() + text.size());
  heap_.budget().made(text.size() + text.runs().size() * sizeof(Text::Run));
  out_->append(text);
}

Evaluator::Flow Evaluator::run(const Output& node) {
  print(evaluate(*node.value));
  return Flow::kNext;
}

Evaluator::Flow Evaluator::run(const If& node) {
  for (const auto& [test, block] : node.branches) {
    if (truthy(evaluate(*test))) return run(block);
  }
  return run(node.otherwise);
}

const List* Evaluator::loop_items(const For& node) {
  const List* all = iterate(heap_, evaluate(*node.iterable));
  if (!node.condition) return all;
  std::vector<Value> passed;
  for (const Value& item : all->items) {
    const ScopeGuard scope(*this);
    assign(node.target, item);
    if (truthy(evaluate(*node.condition))) passed.push_back(item);
  }
  return std::get<List*>(heap_.list(std::move(passed)));
}

Evaluator::Flow Evaluator::run(const For& node) {
  const List* items = loop_items(node);
  Loop* loop = heap_.loop(items, loop_depth_);
  ++loop_depth_;
  bool finished_a_turn = false;
  for (; loop->index0 < items->items.size(); ++loop->index0) {
    heap_.budget().step();
    const ScopeGuard scope(*this);
    assign(node.target, items->items[loop->index0]);
    scope_->names.insert_or_assign("loop", Value(loop));
    const Flow flow = run(node.body);
    if (flow == Flow::kBreak) break;
    if (flow == Flow::kNext) finished_a_turn = true;
  }
  --loop_depth_;
  // As in Jinja, a loop whose every turn was cut short runs its else block too.
  if (finished_a_turn) return Flow::kNext;
  const ScopeGuard scope(*this);
  return run(node.otherwise);
}

void Evaluator::assign(const Target& target, const Value& value) {
  if (target.is_tuple) {
    const List* items = iterate(heap_, value);
    if (items->items.size() != target.items.size()) {
      throw TemplateError(fmt::format("expected {} values to unpack, got {}", target.items.size(), items->items.size()),
                          line_);
    }
    for (size_t i = 0; i < target.items.size(); ++i) assign(target.items[i], items->items[i]);
    return;
  }
  if (target.attribute.empty()) {
    heap_.budget().made(target.name.size());
    scope_->names.insert_or_assign(target.name, value);
    return;
  }
  const Value* object = ScopePool::find(scope_, target.name);
  const auto* space = object ? std::get_if<Namespace*>(object) : nullptr;
  if (!space) throw TemplateError("cannot assign attribute on non-namespace object", line_);
  heap_.budget().made(target.attribute.size());
  (*space)->values.insert_or_assign(target.attribute, value);
}

Evaluator::Flow Evaluator::run(const Set& node) {
  assign(node.target, evaluate(*node.value));
  return Flow::kNext;
}

Value Evaluator::block_text(const Block& block) {
  Capture capture(*this);
  const ScopeGuard scope(*this);
  run(block);
  return heap_.text(capture.take());
}

Value Evaluator::filter_text(const Expression& filters, const Value& text) {
  const Value* outer = std::exchange(block_text_, &text);
  Value result = evaluate(filters);
  block_text_ = outer;
  return result;
}

Evaluator::Flow Evaluator::run(const SetBlock& node) {
  const Value text = block_text(node.body);
  assign(node.target, node.filter ? filter_text(*node.filter, text) : text);
  return Flow::kNext;
}

Evaluator::Flow Evaluator::run(const FilterBlock& node) {
  print(filter_text(*node.filter, block_text(node.body)));
  return Flow::kNext;
}

void Evaluator::capture_scope() {
  constexpr size_t kScopeBytes = 512;  // a scope with its first few variables, about
  heap_.budget().made(kScopeBytes);
  ScopePool::capture(scope_);
}

Evaluator::Flow Evaluator::run(const DefineMacro& node) {
  capture_scope();
  const Macro& macro = *node.macro;
  Callable* callable = heap_.callable({.name = macro.name, .receiver = None{}, .macro = &macro, .closure = scope_});
  scope_->names.insert_or_assign(macro.name, Value(callable));
  return Flow::kNext;
}

Evaluator::Flow Evaluator::run(const CallBlock& node) {
  capture_scope();
  const Macro& macro = *node.caller;
  const Value caller = heap_.callable({.name = macro.name, .receiver = None{}, .macro = &macro, .closure = scope_});
  print(call_expression(std::get<Call>(node.call->node), &caller));
  return Flow::kNext;
}

Evaluator::Flow Evaluator::run(const With& node) {
  std::vector<Value> values;  // all are evaluated outside of the new scope
  for (const auto& [target, expression] : node.variables) values.push_back(evaluate(*expression));
  const ScopeGuard scope(*this);
  for (size_t i = 0; i < values.size(); ++i) assign(node.variables[i].first, values[i]);
  return run(node.body);
}

Evaluator::Flow Evaluator::run(const Generation& node) {
  const ScopeGuard scope(*this);
  return run(node.body);
}

}  // namespace moraine::runtime::jinja
