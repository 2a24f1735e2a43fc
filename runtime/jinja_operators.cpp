#include "runtime/jinja_operators.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "runtime/jinja_format.h"

namespace moraine::runtime::jinja {
namespace {

constexpr std::string_view kOperatorText[] = {"+", "-", "*", "/", "//", "%", "**"};

[[noreturn]] void fail_operands(ArithmeticOp op, const Value& left, const Value& right) {
  require_defined(left);
  require_defined(right);
  throw TemplateError(fmt::format("unsupported operand types for {}: '{}' and '{}'",
                                  kOperatorText[static_cast<size_t>(op)], type_name(left), type_name(right)));
}

[[noreturn]] void fail_overflow() {
  throw TemplateError("an integer is too large (64 bits)");
}

[[noreturn]] void fail_zero() {
  throw TemplateError("division by zero");
}

int64_t integer_power(int64_t base, int64_t exponent) {
  int64_t result = 1;
  while (exponent > 0) {
    if ((exponent & 1) != 0 && __builtin_mul_overflow(result, base, &result)) fail_overflow();
    exponent >>= 1;
    if (exponent > 0 && __builtin_mul_overflow(base, base, &base)) fail_overflow();
  }
  return result;
}

Value integer_arithmetic(ArithmeticOp op, int64_t left, int64_t right) {
  int64_t result = 0;
  switch (op) {
    case ArithmeticOp::kAdd:
      if (__builtin_add_overflow(left, right, &result)) fail_overflow();
      return result;
    case ArithmeticOp::kSubtract:
      if (__builtin_sub_overflow(left, right, &result)) fail_overflow();
      return result;
    case ArithmeticOp::kMultiply:
      if (__builtin_mul_overflow(left, right, &result)) fail_overflow();
      return result;
    case ArithmeticOp::kDivide:
      if (right == 0) fail_zero();
      return static_cast<double>(left) / static_cast<double>(right);
    case ArithmeticOp::kFloorDivide:
      if (right == 0) fail_zero();
      if (right == -1) return integer_arithmetic(ArithmeticOp::kSubtract, 0, left);
      return left / right - (left % right != 0 && (left < 0) != (right < 0) ? 1 : 0);
    case ArithmeticOp::kModulo:
      if (right == 0) fail_zero();
      if (right == -1) return int64_t{0};
      return left % right + (left % right != 0 && (left < 0) != (right < 0) ? right : 0);
    case ArithmeticOp::kPower:
      if (right >= 0) return integer_power(left, right);
      if (left == 0) fail_zero();
      return std::pow(static_cast<double>(left), static_cast<double>(right));
  }
  return None{};
}

Value real_arithmetic(ArithmeticOp op, double left, double right) {
  const bool divides = op == ArithmeticOp::kDivide || op == ArithmeticOp::kFloorDivide || op == ArithmeticOp::kModulo;
  if (divides && right == 0) fail_zero();
  switch (op) {
    case ArithmeticOp::kAdd:
      return left + right;
    case ArithmeticOp::kSubtract:
      return left - right;
    case ArithmeticOp::kMultiply:
      return left * right;
    case ArithmeticOp::kDivide:
      return left / right;
    case ArithmeticOp::kFloorDivide:
      return std::floor(left / right);
    case ArithmeticOp::kModulo: {
      const double rest = std::fmod(left, right);
      return rest != 0 && (rest < 0) != (right < 0) ? rest + right : rest;
    }
    case ArithmeticOp::kPower: {
      if (left == 0 && right < 0) fail_zero();
      const double result = std::pow(left, right);
      if (std::isnan(result) && !std::isnan(left) && !std::isnan(right)) {
        throw TemplateError("complex numbers are not supported");
      }
      return result;
    }
  }
  return None{};
}

bool is_sequence(const List* list) {
  return list->kind == ListKind::kList || list->kind == ListKind::kTuple;
}

List* as_sequence(const Value& value) {
  const auto* list = std::get_if<List*>(&value);
  return list && is_sequence(*list) ? *list : nullptr;
}

Value repeat(Heap& heap, const Value& sequence, int64_t count) {
  const auto times = static_cast<size_t>(std::max<int64_t>(count, 0));
  if (const Text* text = as_text(sequence)) {
    if (text->empty() || times == 0) return heap.text({}, true);
    if (times > heap.budget().limits().max_text_bytes / text->size()) heap.budget().check_text(SIZE_MAX);
    heap.budget().step(times / 16);
    if (text->runs().size() > 1) heap.budget().made(times * text->runs().size() * sizeof(Text::Run));
    Text result;
    for (size_t i = 0; i < times; ++i) result.append(*text);
    return heap.text(std::move(result));
  }
  const List* list = as_sequence(sequence);
  if (list->items.empty() || times == 0) return heap.list({}, list->kind);
  if (times > heap.budget().limits().max_list_items / list->items.size()) heap.budget().check_items(SIZE_MAX);
  std::vector<Value> items;
  for (size_t i = 0; i < times; ++i) items.insert(items.end(), list->items.begin(), list->items.end());
  return heap.list(std::move(items), list->kind);
}

Value concatenate(Heap& heap, const Text& left, const Text& right) {
  heap.budget().check_text(left.size() + right.size());
  Text result = left;
  result.append(right);
  return heap.text(std::move(result));
}

Value concatenate(Heap& heap, const List& left, const List& right) {
  heap.budget().check_items(left.items.size() + right.items.size());
  std::vector<Value> items = left.items;
  items.insert(items.end(), right.items.begin(), right.items.end());
  return heap.list(std::move(items), left.kind);
}

bool equal_text(Heap& heap, const Text& left, const Text& right) {
  if (left.size() != right.size()) return false;
  heap.budget().scan(left.size());
  return left.bytes() == right.bytes();
}

bool equal_dict(Heap& heap, const Dict& left, const Dict& right) {
  if (left.items.size() != right.items.size()) return false;
  return std::all_of(left.items.begin(), left.items.end(), [&](const auto& item) {
    if (const Text* key = as_text(item.first)) heap.budget().scan(key->size());
    const Value* other = right.find(item.first);
    return other && equal(heap, item.second, *other);
  });
}

}  // namespace

Value arithmetic(Heap& heap, ArithmeticOp op, const Value& left, const Value& right) {
  int64_t left_integer = 0, right_integer = 0;
  const bool left_is_integer = as_integer(left, left_integer), right_is_integer = as_integer(right, right_integer);
  if (left_is_integer && right_is_integer) return integer_arithmetic(op, left_integer, right_integer);
  double left_real = 0, right_real = 0;
  if (as_number(left, left_real) && as_number(right, right_real)) return real_arithmetic(op, left_real, right_real);

  const Text *left_text = as_text(left), *right_text = as_text(right);
  const List *left_list = as_sequence(left), *right_list = as_sequence(right);
  if (op == ArithmeticOp::kAdd) {
    if (left_text && right_text) return concatenate(heap, *left_text, *right_text);
    if (left_list && right_list && left_list->kind == right_list->kind) {
      return concatenate(heap, *left_list, *right_list);
    }
  }
  if (op == ArithmeticOp::kMultiply) {
    if ((left_text || left_list) && right_is_integer) return repeat(heap, left, right_integer);
    if ((right_text || right_list) && left_is_integer) return repeat(heap, right, left_integer);
  }
  if (op == ArithmeticOp::kModulo && left_text) throw TemplateError("string formatting with % is not supported");
  fail_operands(op, left, right);
}

Value negate(const Value& operand) {
  int64_t integer = 0;
  if (as_integer(operand, integer)) return integer_arithmetic(ArithmeticOp::kSubtract, 0, integer);
  if (const auto* real = std::get_if<double>(&operand)) return -*real;
  require_defined(operand);
  throw TemplateError(fmt::format("bad operand type for unary -: '{}'", type_name(operand)));
}

bool equal(Heap& heap, const Value& left, const Value& right) {
  heap.budget().step();
  int64_t left_integer = 0, right_integer = 0;
  if (as_integer(left, left_integer) && as_integer(right, right_integer)) return left_integer == right_integer;
  double left_real = 0, right_real = 0;
  if (as_number(left, left_real) && as_number(right, right_real)) return left_real == right_real;
  if (left.index() != right.index()) return false;
  if (is_none(left) || is_undefined(left)) return true;
  if (const Text* text = as_text(left)) return equal_text(heap, *text, *as_text(right));
  if (const List* one = as_sequence(left), *two = as_sequence(right); one && two) {
    if (one->kind != two->kind || one->items.size() != two->items.size()) return false;
    return std::equal(one->items.begin(), one->items.end(), two->items.begin(),
                      [&](const Value& a, const Value& b) { return equal(heap, a, b); });
  }
  if (const auto* dict = std::get_if<Dict*>(&left)) return equal_dict(heap, **dict, *std::get<Dict*>(right));
  if (const auto* list = std::get_if<List*>(&left)) return *list == std::get<List*>(right);
  if (const auto* space = std::get_if<Namespace*>(&left)) return *space == std::get<Namespace*>(right);
  if (const auto* loop = std::get_if<Loop*>(&left)) return *loop == std::get<Loop*>(right);
  return std::get<Callable*>(left) == std::get<Callable*>(right);
}

bool less(Heap& heap, const Value& left, const Value& right) {
  heap.budget().step();
  int64_t left_integer = 0, right_integer = 0;
  if (as_integer(left, left_integer) && as_integer(right, right_integer)) return left_integer < right_integer;
  double left_real = 0, right_real = 0;
  if (as_number(left, left_real) && as_number(right, right_real)) return left_real < right_real;
  if (const Text* one = as_text(left), *two = as_text(right); one && two) {
    heap.budget().scan(std::min(one->size(), two->size()));
    return one->bytes() < two->bytes();  // UTF-8 sorts as its code points do
  }
  if (const List* one = as_sequence(left), *two = as_sequence(right); one && two && one->kind == two->kind) {
    for (size_t i = 0; i < one->items.size() && i < two->items.size(); ++i) {
      if (!equal(heap, one->items[i], two->items[i])) return less(heap, one->items[i], two->items[i]);
    }
    return one->items.size() < two->items.size();
  }
  require_defined(left);
  require_defined(right);
  throw TemplateError(fmt::format("'<' not supported between '{}' and '{}'", type_name(left), type_name(right)));
}

bool compare(Heap& heap, CompareOp op, const Value& left, const Value& right) {
  switch (op) {
    case CompareOp::kEqual:
      return equal(heap, left, right);
    case CompareOp::kNotEqual:
      return !equal(heap, left, right);
    case CompareOp::kLess:
      return less(heap, left, right);
    case CompareOp::kGreater:
      return less(heap, right, left);
    case CompareOp::kLessEqual:
      return less(heap, left, right) || equal(heap, left, right);
    case CompareOp::kGreaterEqual:
      return less(heap, right, left) || equal(heap, left, right);
    case CompareOp::kIn:
      return contains(heap, right, left);
    case CompareOp::kNotIn:
      return !contains(heap, right, left);
  }
  return false;
}

bool contains(Heap& heap, const Value& container, const Value& item) {
  if (const Text* text = as_text(container)) {
    const Text& needle = require_text(item, "the left side of 'in' with a string on the right");
    heap.budget().scan(text->size() + needle.size());
    return find_text(text->bytes(), needle.bytes()) != std::string_view::npos;
  }
  if (const auto* dict = std::get_if<Dict*>(&container)) {
    if (const Text* key = as_text(item)) heap.budget().scan(key->size());
    return !is_undefined(item) && (*dict)->find(item) != nullptr;
  }
  if (std::holds_alternative<List*>(container)) {
    const List* list = iterate(heap, container);
    return std::any_of(list->items.begin(), list->items.end(),
                       [&](const Value& one) { return equal(heap, one, item); });
  }
  if (is_undefined(container)) return false;
  throw TemplateError(fmt::format("argument of type '{}' is not iterable", type_name(container)));
}

}  // namespace moraine::runtime::jinja
