#include "runtime/jinja_value.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

namespace moraine::runtime::jinja {
namespace {

int depth_of(const Value& value) {
  if (const auto* list = std::get_if<List*>(&value)) return (*list)->depth;
  if (const auto* dict = std::get_if<Dict*>(&value)) return (*dict)->depth;
  return 0;
}

int checked_depth(int depth) {
  if (depth > kMaxValueDepth) throw TemplateError("lists and dictionaries are nested too deeply");
  return depth;
}

[[noreturn]] void fail_unhashable(const Value& key) {
  require_defined(key);
  throw TemplateError(fmt::format("'{}' can't be a dictionary key", type_name(key)));
}

}  // namespace

const Value* Dict::find(std::string_view key) const {
  const auto found = by_text.find(key);
  return found == by_text.end() ? nullptr : &items[found->second].second;
}

const Value* Dict::find(const Value& key) const {
  double number = 0;
  if (const Text* text = as_text(key)) return find(text->bytes());
  if (as_number(key, number)) {
    const auto found = by_number.find(number);
    return found == by_number.end() ? nullptr : &items[found->second].second;
  }
  if (!is_none(key)) fail_unhashable(key);
  const auto found = by_other.find("none");
  return found == by_other.end() ? nullptr : &items[found->second].second;
}

Value Heap::text(Text text) {
  budget_.check_text(text.size());
  budget_.made(text.cost_bytes());
  return std::make_shared<const Text>(std::move(text));
}

Value Heap::undefined(std::string message) {
  budget_.made(sizeof(std::string) + message.size());
  return Undefined{std::make_shared<const std::string>(std::move(message))};
}

Value Heap::list(std::vector<Value> items, ListKind kind) {
  budget_.check_items(items.size());
  budget_.step(items.size() / 16);
  budget_.made(sizeof(List) + items.size() * sizeof(Value));
  int depth = 0;
  for (const Value& item : items) depth = std::max(depth, depth_of(item));
  return &lists_.emplace_back(List{.items = std::move(items), .kind = kind, .depth = checked_depth(depth + 1)});
}

Dict* Heap::dict() {
  budget_.made(sizeof(Dict));
  return &dicts_.emplace_back();
}

void Heap::set(Dict& dict, const Value& key, Value value) {
  constexpr size_t kIndexNodeBytes = 80;
  if (const Text* text = as_text(key)) budget_.scan(text->size());
  dict.depth = std::max(dict.depth, checked_depth(depth_of(value) + 1));
  if (const Value* old = dict.find(key)) {
    *const_cast<Value*>(old) = std::move(value);
    return;
  }
  const size_t place = dict.items.size();
  budget_.check_items(place + 1);
  budget_.made(2 * sizeof(Value) + kIndexNodeBytes);
  dict.items.emplace_back(key, std::move(value));
  double number = 0;
  if (const Text* text = as_text(key)) {
    dict.by_text.emplace(text->bytes(), place);
  } else if (as_number(key, number)) {
    if (std::isnan(number)) throw TemplateError("nan can't be a dictionary key");
    dict.by_number.emplace(number, place);
  } else {
    dict.by_other.emplace("none", place);
  }
}

Namespace* Heap::make_namespace() {
  budget_.made(sizeof(Namespace));
  return &namespaces_.emplace_back();
}

Loop* Heap::loop(const List* items, int depth0) {
  budget_.made(sizeof(Loop));
  return &loops_.emplace_back(Loop{.items = items, .index0 = 0, .depth0 = depth0});
}

Callable* Heap::callable(Callable callable) {
  budget_.made(sizeof(Callable) + callable.name.size());
  return &callables_.emplace_back(std::move(callable));
}

bool is_undefined(const Value& value) {
  return std::holds_alternative<Undefined>(value);
}

bool is_none(const Value& value) {
  return std::holds_alternative<None>(value);
}

const Text* as_text(const Value& value) {
  const auto* text = std::get_if<TextPtr>(&value);
  return text ? text->get() : nullptr;
}

bool as_integer(const Value& value, int64_t& number) {
  if (const auto* integer = std::get_if<int64_t>(&value)) {
    number = *integer;
    return true;
  }
  if (const auto* boolean = std::get_if<bool>(&value)) {
    number = *boolean ? 1 : 0;
    return true;
  }
  return false;
}

bool as_number(const Value& value, double& number) {
  if (const auto* real = std::get_if<double>(&value)) {
    number = *real;
    return true;
  }
  int64_t integer = 0;
  if (!as_integer(value, integer)) return false;
  number = static_cast<double>(integer);
  return true;
}

std::string type_name(const Value& value) {
  if (const auto* list = std::get_if<List*>(&value)) {
    constexpr const char* kNames[] = {"list", "tuple", "dict view", "generator"};
    return kNames[static_cast<size_t>((*list)->kind)];
  }
  if (const auto* callable = std::get_if<Callable*>(&value)) return (*callable)->macro ? "Macro" : "function";
  constexpr const char* kNames[] = {"Undefined", "NoneType", "bool",      "int",         "float",   "str",
                                    "list",      "dict",     "Namespace", "LoopContext", "function"};
  static_assert(std::size(kNames) == std::variant_size_v<Value>);
  return kNames[value.index()];
}

bool truthy(const Value& value) {
  struct Visitor {
    bool operator()(const Undefined&) const { return false; }
    bool operator()(const None&) const { return false; }
    bool operator()(bool boolean) const { return boolean; }
    bool operator()(int64_t integer) const { return integer != 0; }
    bool operator()(double real) const { return real != 0; }
    bool operator()(const TextPtr& text) const { return !text->empty(); }
    bool operator()(const List* list) const { return list->kind == ListKind::kGenerator || !list->items.empty(); }
    bool operator()(const Dict* dict) const { return !dict->items.empty(); }
    bool operator()(const Namespace*) const { return true; }
    bool operator()(const Loop*) const { return true; }
    bool operator()(const Callable*) const { return true; }
  };
  return std::visit(Visitor{}, value);
}

const List* iterate(Heap& heap, const Value& value) {
  if (const auto* held = std::get_if<List*>(&value)) {
    List* list = *held;
    if (list->kind != ListKind::kGenerator) return list;
    if (list->consumed) return std::get<List*>(heap.list({}));
    list->consumed = true;
    return list;
  }
  std::vector<Value> items;
  if (const auto* dict = std::get_if<Dict*>(&value)) {
    for (const auto& [key, unused] : (*dict)->items) items.push_back(key);
  } else if (const Text* text = as_text(value)) {
    heap.budget().scan(text->size());
    for (size_t at = 0; at < text->size();) {
      const size_t length = code_point_at(text->bytes(), at).length;
      heap.budget().step();
      heap.budget().check_items(items.size() + 1);
      items.push_back(heap.text(text->part(at, at + length)));
      at += length;
    }
  } else if (!is_undefined(value)) {
    throw TemplateError(fmt::format("'{}' object is not iterable", type_name(value)));
  }
  return std::get<List*>(heap.list(std::move(items)));
}

int64_t length_of(Heap& heap, const Value& value) {
  if (const Text* text = as_text(value)) {
    heap.budget().scan(text->size());
    return static_cast<int64_t>(count_code_points(text->bytes()));
  }
  if (const auto* dict = std::get_if<Dict*>(&value)) return static_cast<int64_t>((*dict)->items.size());
  if (const auto* loop = std::get_if<Loop*>(&value)) return static_cast<int64_t>((*loop)->items->items.size());
  if (const auto* list = std::get_if<List*>(&value); list && (*list)->kind != ListKind::kGenerator) {
    return static_cast<int64_t>((*list)->items.size());
  }
  if (is_undefined(value)) return 0;
  throw TemplateError(fmt::format("object of type '{}' has no len()", type_name(value)));
}

void require_defined(const Value& value) {
  if (const auto* undefined = std::get_if<Undefined>(&value)) throw TemplateError(*undefined->message);
}

int64_t require_integer(const Value& value, std::string_view what) {
  int64_t number = 0;
  require_defined(value);
  if (!as_integer(value, number)) {
    throw TemplateError(fmt::format("{} must be an integer, not '{}'", what, type_name(value)));
  }
  return number;
}

const Text& require_text(const Value& value, std::string_view what) {
  require_defined(value);
  const Text* text = as_text(value);
  if (!text) throw TemplateError(fmt::format("{} must be a string, not '{}'", what, type_name(value)));
  return *text;
}

std::vector<const Value*> bind_arguments(std::string_view callee, const Arguments& arguments,
                                         const std::vector<std::string_view>& names) {
  if (arguments.positional.size() > names.size()) {
    throw TemplateError(
        fmt::format("'{}' takes at most {} arguments, got {}", callee, names.size(), arguments.positional.size()));
  }
  std::vector<const Value*> bound(names.size(), nullptr);
  for (size_t i = 0; i < arguments.positional.size(); ++i) bound[i] = &arguments.positional[i];
  for (const auto& [name, value] : arguments.keyword) {
    const auto found = std::find(names.begin(), names.end(), name);
    if (found == names.end()) throw TemplateError(fmt::format("'{}' has no argument '{}'", callee, name));
    const Value*& place = bound[static_cast<size_t>(found - names.begin())];
    if (place) throw TemplateError(fmt::format("'{}' got argument '{}' twice", callee, name));
    place = &value;
  }
  return bound;
}

}  // namespace moraine::runtime::jinja
