#pragma once

#include <optional>

#include "runtime/jinja_value.h"

namespace moraine::runtime::jinja {

enum class ArithmeticOp { kAdd, kSubtract, kMultiply, kDivide, kFloorDivide, kModulo, kPower };
enum class CompareOp { kEqual, kNotEqual, kLess, kLessEqual, kGreater, kGreaterEqual, kIn, kNotIn };

/// Python's arithmetic, including + and * of strings and lists. Throws TemplateError for types that don't fit, division
/// by zero, integers beyond 64 bits and % on strings.
Value arithmetic(Heap& heap, ArithmeticOp op, const Value& left, const Value& right);
Value negate(const Value& operand);

/// Python's ==. Never fails for a mix of types.
bool equal(Heap& heap, const Value& left, const Value& right);
/// Python's < for numbers, strings and sequences. Throws TemplateError for any other pair.
bool less(Heap& heap, const Value& left, const Value& right);
bool compare(Heap& heap, CompareOp op, const Value& left, const Value& right);
/// `item in container`. Throws TemplateError if it isn't a container.
bool contains(Heap& heap, const Value& container, const Value& item);

/// `object.name`: method, then item. Undefined if there is neither; throws TemplateError if `object` is undefined.
Value attribute(Heap& heap, const Value& object, std::string_view name);
/// `object[index]`: item, then method. As attribute().
Value subscript(Heap& heap, const Value& object, const Value& index);
/// `object[start:stop:step]` of a string, list or tuple; absent bounds are nullopt.
Value slice(Heap& heap, const Value& object, const std::optional<Value>& start, const std::optional<Value>& stop,
            const std::optional<Value>& step);

}  // namespace moraine::runtime::jinja
