// Attributes, subscripts and slices: the part of jinja_operators.h that looks into values.
#include <fmt/format.h>

#include <algorithm>

#include "runtime/jinja_methods.h"
#include "runtime/jinja_operators.h"

namespace moraine::runtime::jinja {
namespace {

/// "'dict object' has no attribute 'x'", as Jinja says it.
Value missing_attribute(Heap& heap, const Value& object, std::string_view name) {
  const std::string type = is_none(object) ? "None" : type_name(object) + " object";
  return heap.undefined(fmt::format("'{}' has no attribute '{}'", type, name.substr(0, 100)));
}

Value missing_element(Heap& heap, const Value& object, const Value& index) {
  int64_t number = 0;
  const std::string element = as_integer(index, number) ? fmt::format("{}", number) : type_name(index);
  return heap.undefined(fmt::format("'{} object' has no element {}", type_name(object), element));
}

Value item_of_text(Heap& heap, const Value& object, const Text& text, int64_t index) {
  heap.budget().scan(text.size());
  if (index < 0) index += static_cast<int64_t>(count_code_points(text.bytes()));
  if (index >= 0) {
    size_t at = 0;
    for (; at < text.size() && index > 0; --index) at += code_point_at(text.bytes(), at).length;
    if (at < text.size()) return heap.text(text.part(at, at + code_point_at(text.bytes(), at).length));
  }
  return missing_element(heap, object, index);
}

std::optional<Value> loop_attribute(Heap& heap, const Loop& loop, std::string_view name) {
  const auto length = static_cast<int64_t>(loop.items->items.size());
  const auto index0 = static_cast<int64_t>(loop.index0);
  if (name == "index") return index0 + 1;
  if (name == "index0") return index0;
  if (name == "revindex") return length - index0;
  if (name == "revindex0") return length - index0 - 1;
  if (name == "first") return index0 == 0;
  if (name == "last") return index0 + 1 == length;
  if (name == "length") return length;
  if (name == "depth") return int64_t{loop.depth0} + 1;
  if (name == "depth0") return int64_t{loop.depth0};
  if (name == "previtem") {
    return index0 > 0 ? loop.items->items[loop.index0 - 1] : heap.undefined("there is no previous item");
  }
  if (name == "nextitem") {
    return index0 + 1 < length ? loop.items->items[loop.index0 + 1] : heap.undefined("there is no next item");
  }
  return std::nullopt;
}

/// Item under a string key, in the objects that have such items.
std::optional<Value> named_item(Heap& heap, const Value& object, std::string_view name) {
  heap.budget().scan(name.size());
  if (const auto* dict = std::get_if<Dict*>(&object)) {
    if (const Value* found = (*dict)->find(name)) return *found;
  } else if (const auto* space = std::get_if<Namespace*>(&object)) {
    const auto found = (*space)->values.find(name);
    if (found != (*space)->values.end()) return found->second;
  } else if (const auto* loop = std::get_if<Loop*>(&object)) {
    return loop_attribute(heap, **loop, name);
  }
  return std::nullopt;
}

std::optional<Value> bound_method(Heap& heap, const Value& object, std::string_view name) {
  if (!has_method(object, name)) return std::nullopt;
  return heap.callable(Callable{.name = std::string(name), .receiver = object});
}

/// Indices of Python's slice over `length` items: first index, step and count.
struct Steps {
  int64_t first;
  int64_t step;
  int64_t count;
};

Steps resolve_slice(int64_t length, const std::optional<Value>& start, const std::optional<Value>& stop,
                    const std::optional<Value>& step) {
  const auto bound = [&](const std::optional<Value>& value, int64_t absent, int64_t lowest, int64_t highest) {
    if (!value || is_none(*value)) return absent;
    int64_t index = require_integer(*value, "a slice index");
    if (index < 0) index += length;
    return std::clamp(index, lowest, highest);
  };
  const int64_t by = step && !is_none(*step) ? require_integer(*step, "a slice step") : 1;
  if (by == 0) throw TemplateError("slice step cannot be zero");
  if (by > 0) {
    const int64_t first = bound(start, 0, 0, length), end = bound(stop, length, 0, length);
    return {first, by, first < end ? (end - first - 1) / by + 1 : 0};
  }
  const int64_t first = bound(start, length - 1, -1, length - 1), end = bound(stop, -1, -1, length - 1);
  return {first, by, first > end ? (first - end - 1) / -std::max(by, -INT64_MAX) + 1 : 0};
}

}  // namespace

Value attribute(Heap& heap, const Value& object, std::string_view name) {
  require_defined(object);
  if (std::optional<Value> method = bound_method(heap, object, name)) return *method;
  if (std::optional<Value> item = named_item(heap, object, name)) return *item;
  return missing_attribute(heap, object, name);
}

Value subscript(Heap& heap, const Value& object, const Value& index) {
  require_defined(object);
  if (const Text* name = as_text(index)) {
    if (std::optional<Value> item = named_item(heap, object, name->bytes())) return *item;
    if (std::optional<Value> method = bound_method(heap, object, name->bytes())) return *method;
    return missing_attribute(heap, object, name->bytes());
  }
  if (const auto* dict = std::get_if<Dict*>(&object)) {
    const bool hashable = !is_undefined(index) && index.index() < Value(static_cast<List*>(nullptr)).index();
    const Value* found = hashable ? (*dict)->find(index) : nullptr;
    return found ? *found : missing_element(heap, object, index);
  }
  int64_t number = 0;
  if (as_integer(index, number)) {
    if (const Text* text = as_text(object)) return item_of_text(heap, object, *text, number);
    const auto* list = std::get_if<List*>(&object);
    if (list && ((*list)->kind == ListKind::kList || (*list)->kind == ListKind::kTuple)) {
      const auto length = static_cast<int64_t>((*list)->items.size());
      if (number < 0) number += length;
      if (number >= 0 && number < length) return (*list)->items[static_cast<size_t>(number)];
    }
  }
  return missing_element(heap, object, index);
}

Value slice(Heap& heap, const Value& object, const std::optional<Value>& start, const std::optional<Value>& stop,
            const std::optional<Value>& step) {
  require_defined(object);
  if (const Text* text = as_text(object)) {
    heap.budget().scan(text->size());
    heap.budget().made(text->size() * sizeof(size_t));
    const std::vector<size_t> offsets = code_point_offsets(text->bytes());
    const Steps steps = resolve_slice(static_cast<int64_t>(offsets.size()) - 1, start, stop, step);
    const auto first = static_cast<size_t>(steps.first);
    if (steps.count == 0) return heap.text({}, true);
    if (steps.step == 1)
      return heap.text(text->part(offsets[first], offsets[first + static_cast<size_t>(steps.count)]));
    Text result;
    for (int64_t i = 0; i < steps.count; ++i) {
      const auto at = static_cast<size_t>(steps.first + i * steps.step);
      result.append_part(*text, offsets[at], offsets[at + 1]);
    }
    return heap.text(std::move(result));
  }
  const auto* list = std::get_if<List*>(&object);
  if (!list || ((*list)->kind != ListKind::kList && (*list)->kind != ListKind::kTuple)) {
    throw TemplateError(fmt::format("a {} can't be sliced", type_name(object)));
  }
  const Steps steps = resolve_slice(static_cast<int64_t>((*list)->items.size()), start, stop, step);
  std::vector<Value> items;
  for (int64_t i = 0; i < steps.count; ++i) {
    items.push_back((*list)->items[static_cast<size_t>(steps.first + i * steps.step)]);
  }
  return heap.list(std::move(items), (*list)->kind);
}

}  // namespace moraine::runtime::jinja
