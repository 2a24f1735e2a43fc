// Jinja's tests (`x is defined`), declared in jinja_filters.h.
#include <map>

#include "runtime/jinja_filters.h"
#include "runtime/jinja_operators.h"

namespace moraine::runtime::jinja {
namespace {

/// A test that looks at the value alone.
template <bool (*kPredicate)(const Value&)>
bool plain(Heap&, const Value& value, const Arguments& arguments) {
  bind_arguments("this test", arguments, {});
  return kPredicate(value);
}

/// A test that compares with its argument.
template <CompareOp kOp>
bool comparison(Heap& heap, const Value& value, const Arguments& arguments) {
  const auto bound = bind_arguments("this test", arguments, {"other"});
  if (!bound[0]) throw TemplateError("this test needs an argument");
  return compare(heap, kOp, value, *bound[0]);
}

bool is_defined(const Value& value) {
  return !is_undefined(value);
}
bool is_text(const Value& value) {
  return as_text(value) != nullptr;
}
bool is_boolean(const Value& value) {
  return std::holds_alternative<bool>(value);
}
bool is_true(const Value& value) {
  return is_boolean(value) && std::get<bool>(value);
}
bool is_false(const Value& value) {
  return is_boolean(value) && !std::get<bool>(value);
}
bool is_integer(const Value& value) {
  return std::holds_alternative<int64_t>(value);
}
bool is_float(const Value& value) {
  return std::holds_alternative<double>(value);
}
bool is_number(const Value& value) {
  return is_boolean(value) || is_integer(value) || is_float(value);
}
bool is_mapping(const Value& value) {
  return std::holds_alternative<Dict*>(value);
}
bool is_callable(const Value& value) {
  return std::holds_alternative<Callable*>(value);
}

bool is_sequence(const Value& value) {
  const auto* list = std::get_if<List*>(&value);
  const bool indexed = list && ((*list)->kind == ListKind::kList || (*list)->kind == ListKind::kTuple);
  return indexed || is_text(value) || is_mapping(value) || is_undefined(value);
}

bool is_iterable(const Value& value) {
  return is_text(value) || is_mapping(value) || is_undefined(value) || std::holds_alternative<List*>(value) ||
         std::holds_alternative<Loop*>(value);
}

bool has_remainder(Heap& heap, const Value& value, int64_t divisor, int64_t remainder) {
  return equal(heap, arithmetic(heap, ArithmeticOp::kModulo, value, divisor), remainder);
}

bool is_divisible_by(Heap& heap, const Value& value, const Arguments& arguments) {
  const auto bound = bind_arguments("divisibleby", arguments, {"num"});
  if (!bound[0]) throw TemplateError("divisibleby needs a number");
  return has_remainder(heap, value, require_integer(*bound[0], "the argument of divisibleby"), 0);
}

/// Identity; Moraine's none, booleans, numbers and strings are identical when equal and of one type.
bool is_same(Heap& heap, const Value& value, const Arguments& arguments) {
  const auto bound = bind_arguments("sameas", arguments, {"other"});
  if (!bound[0]) throw TemplateError("sameas needs an argument");
  const Value& other = *bound[0];
  if (const auto* list = std::get_if<List*>(&value))
    return value.index() == other.index() && *list == std::get<List*>(other);
  if (const auto* dict = std::get_if<Dict*>(&value))
    return value.index() == other.index() && *dict == std::get<Dict*>(other);
  return value.index() == other.index() && equal(heap, value, other);
}

}  // namespace

TestFunction find_test(std::string_view name) {
  static const std::map<std::string_view, TestFunction> kTests = {
      {"defined", plain<is_defined>},
      {"undefined", plain<is_undefined>},
      {"none", plain<is_none>},
      {"string", plain<is_text>},
      {"boolean", plain<is_boolean>},
      {"true", plain<is_true>},
      {"false", plain<is_false>},
      {"integer", plain<is_integer>},
      {"float", plain<is_float>},
      {"number", plain<is_number>},
      {"mapping", plain<is_mapping>},
      {"sequence", plain<is_sequence>},
      {"iterable", plain<is_iterable>},
      {"callable", plain<is_callable>},
      {"even", [](Heap& heap, const Value& value, const Arguments&) { return has_remainder(heap, value, 2, 0); }},
      {"odd", [](Heap& heap, const Value& value, const Arguments&) { return has_remainder(heap, value, 2, 1); }},
      {"divisibleby", is_divisible_by},
      {"sameas", is_same},
      {"equalto", comparison<CompareOp::kEqual>},
      {"eq", comparison<CompareOp::kEqual>},
      {"==", comparison<CompareOp::kEqual>},
      {"ne", comparison<CompareOp::kNotEqual>},
      {"!=", comparison<CompareOp::kNotEqual>},
      {"lt", comparison<CompareOp::kLess>},
      {"lessthan", comparison<CompareOp::kLess>},
      {"<", comparison<CompareOp::kLess>},
      {"le", comparison<CompareOp::kLessEqual>},
      {"<=", comparison<CompareOp::kLessEqual>},
      {"gt", comparison<CompareOp::kGreater>},
      {"greaterthan", comparison<CompareOp::kGreater>},
      {">", comparison<CompareOp::kGreater>},
      {"ge", comparison<CompareOp::kGreaterEqual>},
      {">=", comparison<CompareOp::kGreaterEqual>},
      {"in", comparison<CompareOp::kIn>},
  };
  const auto found = kTests.find(name);
  return found == kTests.end() ? nullptr : found->second;
}

}  // namespace moraine::runtime::jinja
