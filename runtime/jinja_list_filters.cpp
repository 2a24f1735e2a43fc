#include "runtime/jinja_list_filters.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>

#include "runtime/jinja_filters.h"
#include "runtime/jinja_format.h"
#include "runtime/jinja_methods.h"
#include "runtime/jinja_operators.h"

namespace moraine::runtime::jinja {
namespace {

/// item.a.b for the path "a.b" (numbers index), or item[path] for an integer path.
Value attribute_path(Heap& heap, const Value& item, const Value& path) {
  const Text* text = as_text(path);
  if (!text) return subscript(heap, item, path);
  Value value = item;
  std::string_view rest = text->bytes();
  while (true) {
    heap.budget().step();
    const size_t dot = rest.find('.');
    const std::string_view name = rest.substr(0, dot);
    int64_t index = 0;
    const auto parsed = std::from_chars(name.data(), name.data() + name.size(), index);
    const bool is_index = parsed.ec == std::errc{} && parsed.ptr == name.data() + name.size() && index >= 0;
    value = subscript(heap, value, is_index ? Value(index) : heap.text(name, true));
    if (dot == std::string_view::npos) return value;
    rest.remove_prefix(dot + 1);
  }
}

/// Items for map, select and their kin, for which everything false is empty.
const List* lazy_items(Heap& heap, const Value& value) {
  return truthy(value) ? iterate(heap, value) : std::get<List*>(heap.list({}));
}

Value lower_text(Heap& heap, const Value& value) {
  const Text* text = as_text(value);
  return text ? call_method(heap, value, "lower", {}) : value;
}

/// The arguments from `start` on, for the filter or test named before them.
Arguments arguments_from(const Arguments& arguments, size_t start) {
  return {{arguments.positional.begin() + static_cast<ptrdiff_t>(start), arguments.positional.end()},
          arguments.keyword};
}

/// select, reject, selectattr, rejectattr: keeps the items whose test, found at `arguments[test_at]`, says `keep`.
Value filter_items(Heap& heap, const Value& value, const Arguments& arguments, size_t test_at, bool keep) {
  TestFunction test = nullptr;
  Arguments test_arguments;
  if (arguments.positional.size() > test_at) {
    const std::string name(require_text(arguments.positional[test_at], "the name of a test").bytes());
    test = find_test(name);
    if (!test) throw TemplateError(fmt::format("no test named '{}'", name));
    test_arguments = arguments_from(arguments, test_at + 1);
  }
  std::vector<Value> kept;
  for (const Value& item : lazy_items(heap, value)->items) {
    heap.budget().step();
    const Value subject = test_at == 1 ? attribute_path(heap, item, arguments.positional[0]) : item;
    if ((test ? test(heap, subject, test_arguments) : truthy(subject)) == keep) kept.push_back(item);
  }
  return heap.list(std::move(kept), ListKind::kGenerator);
}

void require_attribute(const Arguments& arguments) {
  if (arguments.positional.empty()) throw TemplateError("selectattr and rejectattr need the name of an attribute");
}

}  // namespace

Value first_item(Heap& heap, const Value& value, const Arguments& arguments) {
  bind_arguments("first", arguments, {});
  const List* list = iterate(heap, value);
  return list->items.empty() ? heap.undefined("no first item, sequence was empty") : list->items.front();
}

Value last_item(Heap& heap, const Value& value, const Arguments& arguments) {
  bind_arguments("last", arguments, {});
  const auto* held = std::get_if<List*>(&value);
  if (held && (*held)->kind == ListKind::kGenerator) throw TemplateError("'generator' object is not reversible");
  const List* list = iterate(heap, value);
  return list->items.empty() ? heap.undefined("no last item, sequence was empty") : list->items.back();
}

Value to_list(Heap& heap, const Value& value, const Arguments& arguments) {
  bind_arguments("list", arguments, {});
  return heap.list(iterate(heap, value)->items);
}

Value dict_items(Heap& heap, const Value& value, const Arguments& arguments) {
  bind_arguments("items", arguments, {});
  if (is_undefined(value)) return heap.list({}, ListKind::kGenerator);
  if (!std::holds_alternative<Dict*>(value)) throw TemplateError("Can only get item pairs from a mapping.");
  const Value view = call_method(heap, value, "items", {});
  return heap.list(std::get<List*>(view)->items, ListKind::kGenerator);
}

Value join_items(Heap& heap, const Value& value, const Arguments& arguments) {
  const auto bound = bind_arguments("join", arguments, {"d", "attribute"});
  const Value separator = bound[0] ? to_text(heap, *bound[0]) : heap.text({}, true);
  std::vector<Value> texts;
  for (const Value& item : iterate(heap, value)->items) {
    heap.budget().step();
    const bool by_attribute = bound[1] && !is_none(*bound[1]);
    texts.push_back(to_text(heap, by_attribute ? attribute_path(heap, item, *bound[1]) : item));
  }
  return join_texts(heap, *as_text(separator), texts);
}

Value map_items(Heap& heap, const Value& value, const Arguments& arguments) {
  std::vector<Value> mapped;
  if (arguments.positional.empty()) {
    const auto bound = bind_arguments("map", arguments, {"attribute", "default"});
    if (!bound[0]) throw TemplateError("map needs a filter or an attribute");
    for (const Value& item : lazy_items(heap, value)->items) {
      heap.budget().step();
      mapped.push_back(attribute_path(heap, item, *bound[0]));
      if (is_undefined(mapped.back()) && bound[1]) mapped.back() = *bound[1];
    }
    return heap.list(std::move(mapped), ListKind::kGenerator);
  }
  const std::string name(require_text(arguments.positional[0], "the name of a filter").bytes());
  const FilterFunction filter = find_filter(name);
  if (!filter) throw TemplateError(fmt::format("no filter named '{}'", name));
  if (name == "map") throw TemplateError("map inside map is not supported");  // it could nest without bound
  const Arguments rest = arguments_from(arguments, 1);
  for (const Value& item : lazy_items(heap, value)->items) {
    heap.budget().step();
    mapped.push_back(filter(heap, item, rest));
  }
  return heap.list(std::move(mapped), ListKind::kGenerator);
}

Value select_items(Heap& heap, const Value& value, const Arguments& arguments) {
  return filter_items(heap, value, arguments, 0, true);
}

Value reject_items(Heap& heap, const Value& value, const Arguments& arguments) {
  return filter_items(heap, value, arguments, 0, false);
}

Value select_by_attribute(Heap& heap, const Value& value, const Arguments& arguments) {
  require_attribute(arguments);
  return filter_items(heap, value, arguments, 1, true);
}

Value reject_by_attribute(Heap& heap, const Value& value, const Arguments& arguments) {
  require_attribute(arguments);
  return filter_items(heap, value, arguments, 1, false);
}

Value reverse_items(Heap& heap, const Value& value, const Arguments& arguments) {
  bind_arguments("reverse", arguments, {});
  if (as_text(value)) return slice(heap, value, std::nullopt, std::nullopt, Value(int64_t{-1}));
  std::vector<Value> items = iterate(heap, value)->items;
  std::reverse(items.begin(), items.end());
  return heap.list(std::move(items), ListKind::kGenerator);
}

Value sort_items(Heap& heap, const Value& value, const Arguments& arguments) {
  const auto bound = bind_arguments("sort", arguments, {"reverse", "case_sensitive", "attribute"});
  const bool reverse = bound[0] && truthy(*bound[0]), case_sensitive = bound[1] && truthy(*bound[1]);
  std::vector<std::pair<Value, Value>> keyed;  // sort key, item
  for (const Value& item : iterate(heap, value)->items) {
    heap.budget().step();
    Value key = bound[2] && !is_none(*bound[2]) ? attribute_path(heap, item, *bound[2]) : item;
    keyed.emplace_back(case_sensitive ? std::move(key) : lower_text(heap, key), item);
  }
  if (keyed.size() == 1) return heap.list({keyed[0].second});
  std::stable_sort(keyed.begin(), keyed.end(), [&](const auto& left, const auto& right) {
    return reverse ? less(heap, right.first, left.first) : less(heap, left.first, right.first);
  });
  std::vector<Value> items;
  items.reserve(keyed.size());
  for (auto& [key, item] : keyed) items.push_back(std::move(item));
  return heap.list(std::move(items));
}

Value unique_items(Heap& heap, const Value& value, const Arguments& arguments) {
  const auto bound = bind_arguments("unique", arguments, {"case_sensitive"});
  const bool case_sensitive = bound[0] && truthy(*bound[0]);
  Dict* seen = heap.dict();
  std::vector<Value> items;
  for (const Value& item : iterate(heap, value)->items) {
    heap.budget().step();
    const Value key = case_sensitive ? item : lower_text(heap, item);
    if (const Text* text = as_text(key)) heap.budget().scan(text->size());
    if (seen->find(key)) continue;
    heap.set(*seen, key, None{});
    items.push_back(item);
  }
  return heap.list(std::move(items), ListKind::kGenerator);
}

}  // namespace moraine::runtime::jinja
