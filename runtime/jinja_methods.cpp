#include "runtime/jinja_methods.h"

#include <fmt/format.h>

#include <algorithm>
#include <climits>
#include <map>

#include "runtime/jinja_format.h"
#include "runtime/jinja_operators.h"

namespace moraine::runtime::jinja {
namespace {

constexpr size_t npos = std::string_view::npos;

using TextMethod = Value (*)(Heap&, const Text&, const Arguments&);
using DictMethod = Value (*)(Heap&, const Dict&, const Arguments&);

bool present(const Value* argument) {
  return argument && !is_none(*argument);
}

Value strip(Heap& heap, const Text& text, const Arguments& arguments, bool left, bool right) {
  const auto bound = bind_arguments("strip", arguments, {"chars"});
  heap.budget().scan(text.size());
  std::optional<std::string_view> chars;
  if (present(bound[0])) chars = require_text(*bound[0], "the argument of strip").bytes();
  if (chars) heap.budget().step(chars->size());
  const auto [begin, end] = strip_range(text.bytes(), chars, left, right);
  return heap.text(text.part(begin, end));
}

/// Parts between white space, as split() without a separator.
void split_on_space(Heap& heap, const Text& text, int64_t max_splits, std::vector<Value>& parts) {
  size_t at = strip_range(text.bytes(), std::nullopt, true, false).first;
  while (at < text.size()) {
    size_t end = at;
    if (max_splits >= 0 && static_cast<int64_t>(parts.size()) >= max_splits) {
      end = text.size();
    } else {
      while (end < text.size()) {
        const CodePoint point = code_point_at(text.bytes(), end);
        if (is_space(point.value)) break;
        end += point.length;
      }
    }
    heap.budget().step();
    heap.budget().check_items(parts.size() + 1);
    parts.push_back(heap.text(text.part(at, end)));
    const auto rest = strip_range(text.bytes().substr(end), std::nullopt, true, false);
    at = end + rest.first;
  }
}

Value split(Heap& heap, const Text& text, const Arguments& arguments) {
  const auto bound = bind_arguments("split", arguments, {"sep", "maxsplit"});
  const int64_t max_splits = bound[1] ? require_integer(*bound[1], "maxsplit") : -1;
  heap.budget().scan(text.size());
  std::vector<Value> parts;
  if (!present(bound[0])) {
    split_on_space(heap, text, max_splits, parts);
    return heap.list(std::move(parts));
  }
  const std::string_view separator = require_text(*bound[0], "the separator of split").bytes();
  if (separator.empty()) throw TemplateError("empty separator");
  size_t begin = 0;
  while (max_splits < 0 || static_cast<int64_t>(parts.size()) < max_splits) {
    const size_t found = find_text(text.bytes(), separator, begin);
    if (found == npos) break;
    heap.budget().step();
    heap.budget().check_items(parts.size() + 1);
    parts.push_back(heap.text(text.part(begin, found)));
    begin = found + separator.size();
  }
  parts.push_back(heap.text(text.part(begin, text.size())));
  return heap.list(std::move(parts));
}

Value rsplit(Heap& heap, const Text& text, const Arguments& arguments) {
  const auto bound = bind_arguments("rsplit", arguments, {"sep", "maxsplit"});
  const int64_t max_splits = bound[1] ? require_integer(*bound[1], "maxsplit") : -1;
  if (max_splits < 0) return split(heap, text, arguments);
  if (!present(bound[0])) throw TemplateError("rsplit with maxsplit needs a separator");
  const std::string_view separator = require_text(*bound[0], "the separator of rsplit").bytes();
  if (separator.empty()) throw TemplateError("empty separator");
  std::vector<Value> parts;
  size_t end = text.size();
  while (static_cast<int64_t>(parts.size()) < max_splits && end >= separator.size()) {
    heap.budget().scan(256 + end * (1 + separator.size() / 16));  // the worst case of rfind
    const size_t found = text.bytes().rfind(separator, end - separator.size());
    if (found == npos) break;
    parts.push_back(heap.text(text.part(found + separator.size(), end)));
    end = found;
  }
  parts.push_back(heap.text(text.part(0, end)));
  std::reverse(parts.begin(), parts.end());
  return heap.list(std::move(parts));
}

Value splitlines(Heap& heap, const Text& text, const Arguments& arguments) {
  const auto bound = bind_arguments("splitlines", arguments, {"keepends"});
  const bool keep_ends = bound[0] && truthy(*bound[0]);
  heap.budget().scan(text.size());
  std::vector<Value> lines;
  const std::string_view bytes = text.bytes();
  for (size_t begin = 0; begin < bytes.size();) {
    const size_t end = std::min(bytes.find_first_of("\r\n", begin), bytes.size());
    const size_t next = end == bytes.size() ? end : end + (bytes.substr(end, 2) == "\r\n" ? 2 : 1);
    heap.budget().step();
    lines.push_back(heap.text(text.part(begin, keep_ends ? next : end)));
    begin = next;
  }
  return heap.list(std::move(lines));
}

/// startswith and endswith; the argument may be a tuple of strings.
Value has_affix(Heap& heap, const Text& text, const Arguments& arguments, bool at_start) {
  const auto bound = bind_arguments(at_start ? "startswith" : "endswith", arguments, {"affix"});
  if (!bound[0]) throw TemplateError("startswith and endswith need an argument");
  const auto matches = [&](const Value& affix) {
    const std::string_view bytes = require_text(affix, "the argument of startswith or endswith").bytes();
    heap.budget().step();
    heap.budget().scan(bytes.size());
    return at_start ? text.bytes().starts_with(bytes) : text.bytes().ends_with(bytes);
  };
  if (const auto* list = std::get_if<List*>(bound[0]); list && (*list)->kind == ListKind::kTuple) {
    return std::any_of((*list)->items.begin(), (*list)->items.end(), matches);
  }
  return matches(*bound[0]);
}

Value remove_affix(Heap& heap, const Text& text, const Arguments& arguments, bool at_start) {
  const auto bound = bind_arguments(at_start ? "removeprefix" : "removesuffix", arguments, {"affix"});
  if (!bound[0]) throw TemplateError("removeprefix and removesuffix need an argument");
  const std::string_view affix = require_text(*bound[0], "the argument of removeprefix or removesuffix").bytes();
  const bool found = at_start ? text.bytes().starts_with(affix) : text.bytes().ends_with(affix);
  const size_t cut = found ? affix.size() : 0;
  return heap.text(at_start ? text.part(cut, text.size()) : text.part(0, text.size() - cut));
}

Value replace(Heap& heap, const Text& text, const Arguments& arguments) {
  const auto bound = bind_arguments("replace", arguments, {"old", "new", "count"});
  if (!bound[0] || !bound[1]) throw TemplateError("replace needs two strings");
  const Text& old = require_text(*bound[0], "the first argument of replace");
  const Text& replacement = require_text(*bound[1], "the second argument of replace");
  const int64_t count = present(bound[2]) ? require_integer(*bound[2], "the count of replace") : -1;
  heap.budget().step(text.size() / 16);
  return heap.text(replace_text(text, old.bytes(), replacement, count, heap.budget().limits().max_text_bytes));
}

/// find(sub): index of the code point, or -1.
Value find(Heap& heap, const Text& text, const Arguments& arguments) {
  const auto bound = bind_arguments("find", arguments, {"sub"});
  if (!bound[0]) throw TemplateError("find needs a string");
  heap.budget().scan(text.size());
  const size_t found = find_text(text.bytes(), require_text(*bound[0], "the argument of find").bytes());
  if (found == npos) return int64_t{-1};
  return static_cast<int64_t>(count_code_points(text.bytes().substr(0, found)));
}

Value count(Heap& heap, const Text& text, const Arguments& arguments) {
  const auto bound = bind_arguments("count", arguments, {"sub"});
  if (!bound[0]) throw TemplateError("count needs a string");
  const std::string_view sub = require_text(*bound[0], "the argument of count").bytes();
  heap.budget().scan(text.size() * 4);
  if (sub.empty()) return static_cast<int64_t>(count_code_points(text.bytes())) + 1;
  int64_t found = 0;
  for (size_t at = find_text(text.bytes(), sub); at != npos; at = find_text(text.bytes(), sub, at + sub.size())) {
    ++found;
  }
  return found;
}

template <Case kCase>
Value to_case(Heap& heap, const Text& text, const Arguments& arguments) {
  bind_arguments("upper, lower, title or capitalize", arguments, {});
  heap.budget().step(text.size() / 16);
  return heap.text(change_case(text, kCase));
}

Value join(Heap& heap, const Text& text, const Arguments& arguments) {
  const auto bound = bind_arguments("join", arguments, {"iterable"});
  if (!bound[0]) throw TemplateError("join needs a list");
  return join_texts(heap, text, iterate(heap, *bound[0])->items);
}

const std::map<std::string_view, TextMethod>& text_methods() {
  static const std::map<std::string_view, TextMethod> kMethods = {
      {"split", split},
      {"rsplit", rsplit},
      {"splitlines", splitlines},
      {"replace", replace},
      {"find", find},
      {"count", count},
      {"join", join},
      {"upper", to_case<Case::kUpper>},
      {"lower", to_case<Case::kLower>},
      {"title", to_case<Case::kTitle>},
      {"capitalize", to_case<Case::kCapitalize>},
      {"strip", [](Heap& h, const Text& t, const Arguments& a) { return strip(h, t, a, true, true); }},
      {"lstrip", [](Heap& h, const Text& t, const Arguments& a) { return strip(h, t, a, true, false); }},
      {"rstrip", [](Heap& h, const Text& t, const Arguments& a) { return strip(h, t, a, false, true); }},
      {"startswith", [](Heap& h, const Text& t, const Arguments& a) { return has_affix(h, t, a, true); }},
      {"endswith", [](Heap& h, const Text& t, const Arguments& a) { return has_affix(h, t, a, false); }},
      {"removeprefix", [](Heap& h, const Text& t, const Arguments& a) { return remove_affix(h, t, a, true); }},
      {"removesuffix", [](Heap& h, const Text& t, const Arguments& a) { return remove_affix(h, t, a, false); }},
  };
  return kMethods;
}

Value dict_get(Heap& heap, const Dict& dict, const Arguments& arguments) {
  const auto bound = bind_arguments("get", arguments, {"key", "default"});
  if (!bound[0]) throw TemplateError("get needs a key");
  if (const Text* key = as_text(*bound[0])) heap.budget().scan(key->size());
  const Value* found = dict.find(*bound[0]);
  return found ? *found : bound[1] ? *bound[1] : Value(None{});
}

/// keys(), values() and items().
template <bool kKeys, bool kValues>
Value dict_view(Heap& heap, const Dict& dict, const Arguments& arguments) {
  bind_arguments("keys, values or items", arguments, {});
  std::vector<Value> items;
  for (const auto& [key, value] : dict.items) {
    heap.budget().step();
    if constexpr (kKeys && kValues) {
      items.push_back(heap.list({key, value}, ListKind::kTuple));
    } else {
      items.push_back(kKeys ? key : value);
    }
  }
  return heap.list(std::move(items), ListKind::kView);
}

Value dict_copy(Heap& heap, const Dict& dict, const Arguments& arguments) {
  bind_arguments("copy", arguments, {});
  Dict* copy = heap.dict();
  for (const auto& [key, value] : dict.items) {
    heap.budget().step();
    heap.set(*copy, key, value);
  }
  return copy;
}

const std::map<std::string_view, DictMethod>& dict_methods() {
  static const std::map<std::string_view, DictMethod> kMethods = {
      {"get", dict_get},
      {"keys", dict_view<true, false>},
      {"values", dict_view<false, true>},
      {"items", dict_view<true, true>},
      {"copy", dict_copy},
  };
  return kMethods;
}

/// index(value) and count(value) of a list or tuple.
Value search_list(Heap& heap, const List& list, std::string_view name, const Arguments& arguments) {
  const auto bound = bind_arguments(name, arguments, {"value"});
  if (!bound[0]) throw TemplateError("index and count need a value");
  int64_t found = 0;
  for (size_t i = 0; i < list.items.size(); ++i) {
    if (!equal(heap, list.items[i], *bound[0])) continue;
    if (name == "index") return static_cast<int64_t>(i);
    ++found;
  }
  if (name == "index") throw TemplateError("the value is not in the list");
  return found;
}

}  // namespace

bool has_method(const Value& object, std::string_view name) {
  if (as_text(object)) return text_methods().contains(name);
  if (std::holds_alternative<Dict*>(object)) return dict_methods().contains(name);
  if (std::holds_alternative<Loop*>(object)) return name == "cycle";
  const auto* list = std::get_if<List*>(&object);
  return list && ((*list)->kind == ListKind::kList || (*list)->kind == ListKind::kTuple) &&
         (name == "index" || name == "count");
}

Value call_method(Heap& heap, const Value& object, std::string_view name, const Arguments& arguments) {
  if (has_method(object, name)) {
    if (const Text* text = as_text(object)) return text_methods().at(name)(heap, *text, arguments);
    if (const auto* dict = std::get_if<Dict*>(&object)) return dict_methods().at(name)(heap, **dict, arguments);
    if (const auto* list = std::get_if<List*>(&object)) return search_list(heap, **list, name, arguments);
    if (arguments.positional.empty()) throw TemplateError("no items for cycling given");
    return arguments.positional[std::get<Loop*>(object)->index0 % arguments.positional.size()];
  }
  throw TemplateError(fmt::format("'{}' has no method '{}'", type_name(object), name));
}

Value join_texts(Heap& heap, const Text& separator, const std::vector<Value>& items) {
  size_t total = 0;
  for (const Value& item : items) {
    total += require_text(item, "every item of join").size() + separator.size();
    heap.budget().check_text(total - separator.size());
  }
  Text result;
  for (size_t i = 0; i < items.size(); ++i) {
    heap.budget().step();
    if (i > 0) result.append(separator);
    result.append(*as_text(items[i]));
  }
  return heap.text(std::move(result));
}

}  // namespace moraine::runtime::jinja
