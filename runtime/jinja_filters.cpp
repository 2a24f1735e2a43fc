#include "runtime/jinja_filters.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <map>

#include "runtime/jinja_format.h"
#include "runtime/jinja_list_filters.h"
#include "runtime/jinja_methods.h"
#include "runtime/jinja_operators.h"

namespace moraine::runtime::jinja {
namespace {

/// A filter that is the method of the same meaning, applied to the value as a string.
Value as_method(Heap& heap, const Value& value, std::string_view method, const Arguments& arguments) {
  return call_method(heap, to_text(heap, value), method, arguments);
}

Value capitalize(Heap& heap, const Value& value, const Arguments& a) {
  return as_method(heap, value, "capitalize", a);
}
Value lower(Heap& heap, const Value& value, const Arguments& a) {
  return as_method(heap, value, "lower", a);
}
Value trim(Heap& heap, const Value& value, const Arguments& a) {
  return as_method(heap, value, "strip", a);
}
Value upper(Heap& heap, const Value& value, const Arguments& a) {
  return as_method(heap, value, "upper", a);
}

/// Not the method of this name: it starts words at fewer places.
Value title(Heap& heap, const Value& value, const Arguments& arguments) {
  bind_arguments("title", arguments, {});
  const Value text = to_text(heap, value);
  heap.budget().step(as_text(text)->size() / 16);
  return heap.text(change_case(*as_text(text), Case::kWords));
}

Value replace(Heap& heap, const Value& value, const Arguments& arguments) {
  const auto bound = bind_arguments("replace", arguments, {"old", "new", "count"});
  if (!bound[0] || !bound[1]) throw TemplateError("replace needs two strings");
  Arguments texts{{to_text(heap, *bound[0]), to_text(heap, *bound[1])}, {}};
  if (bound[2]) texts.positional.push_back(*bound[2]);
  return as_method(heap, value, "replace", texts);
}

Value string(Heap& heap, const Value& value, const Arguments& arguments) {
  bind_arguments("string or safe", arguments, {});
  return to_text(heap, value);
}

Value default_value(Heap& heap, const Value& value, const Arguments& arguments) {
  const auto bound = bind_arguments("default", arguments, {"default_value", "boolean"});
  const bool absent = is_undefined(value) || (bound[1] && truthy(*bound[1]) && !truthy(value));
  if (!absent) return value;
  return bound[0] ? *bound[0] : heap.text({}, true);
}

Value length(Heap& heap, const Value& value, const Arguments& arguments) {
  bind_arguments("length", arguments, {});
  return length_of(heap, value);
}

/// The number a string holds, surrounded by white space at most; nullopt if it is none.
template <typename Number>
std::optional<Number> parse_number(std::string_view text, int base) {
  const auto [begin, end] = strip_range(text, std::nullopt, true, true);
  text = text.substr(begin, end - begin);
  const bool plus = text.starts_with('+');
  if (plus) text.remove_prefix(1);
  if (plus && text.starts_with('-')) return std::nullopt;
  Number number{};
  std::from_chars_result result{};
  if constexpr (std::is_same_v<Number, double>) {
    result = std::from_chars(text.data(), text.data() + text.size(), number);
  } else {
    result = std::from_chars(text.data(), text.data() + text.size(), number, base);
  }
  if (result.ec != std::errc{} || result.ptr != text.data() + text.size()) return std::nullopt;
  return number;
}

std::optional<int64_t> truncated(double number) {
  constexpr double kLimit = 9223372036854775808.0;  // 2^63
  if (!(std::abs(number) < kLimit)) return std::nullopt;
  return static_cast<int64_t>(number);
}

Value to_integer(Heap&, const Value& value, const Arguments& arguments) {
  const auto bound = bind_arguments("int", arguments, {"default", "base"});
  const int64_t base = bound[1] ? require_integer(*bound[1], "the base of int") : 10;
  if (base < 2 || base > 36) throw TemplateError("the base of int must be between 2 and 36");
  std::optional<int64_t> result;
  int64_t integer = 0;
  if (const Text* text = as_text(value)) {
    result = parse_number<int64_t>(text->bytes(), static_cast<int>(base));
    if (!result) {
      if (const auto real = parse_number<double>(text->bytes(), 10)) result = truncated(*real);
    }
  } else if (as_integer(value, integer)) {
    result = integer;
  } else if (const auto* real = std::get_if<double>(&value)) {
    result = truncated(*real);
  } else {
    require_defined(value);
  }
  if (result) return *result;
  return bound[0] ? *bound[0] : Value(int64_t{0});
}

Value to_float(Heap&, const Value& value, const Arguments& arguments) {
  const auto bound = bind_arguments("float", arguments, {"default"});
  double number = 0;
  if (as_number(value, number)) return number;
  if (const Text* text = as_text(value)) {
    if (const auto parsed = parse_number<double>(text->bytes(), 10)) return *parsed;
  }
  require_defined(value);
  return bound[0] ? *bound[0] : Value(0.0);
}

Value absolute(Heap&, const Value& value, const Arguments& arguments) {
  bind_arguments("abs", arguments, {});
  int64_t integer = 0;
  if (as_integer(value, integer)) return integer < 0 ? negate(integer) : Value(integer);
  if (const auto* real = std::get_if<double>(&value)) return std::abs(*real);
  require_defined(value);
  throw TemplateError(fmt::format("bad operand type for abs(): '{}'", type_name(value)));
}

/// Python's textwrap-like `indent`: every line but the first gets `width` spaces, blank lines only if asked.
Value indent(Heap& heap, const Value& value, const Arguments& arguments) {
  const auto bound = bind_arguments("indent", arguments, {"width", "first", "blank"});
  const Value text_value = to_text(heap, value);
  Text prefix("    ", true);
  if (bound[0]) {
    int64_t width = 0;
    if (as_integer(*bound[0], width)) {
      const int64_t spaces = std::clamp<int64_t>(width, 0, 1000);
      prefix = Text(std::string(static_cast<size_t>(spaces), ' '), true);
    } else {
      prefix = require_text(*bound[0], "the width of indent");
    }
  }
  const bool first = bound[1] && truthy(*bound[1]), blank = bound[2] && truthy(*bound[2]);
  const Text& text = *as_text(text_value);
  Text result;
  for (size_t begin = 0; begin <= text.size();) {
    const size_t end = std::min(text.bytes().find('\n', begin), text.size());
    heap.budget().step();
    heap.budget().check_text(result.size() + prefix.size());
    if (begin == 0 ? first : blank || end > begin) result.append(prefix);
    result.append_part(text, begin, std::min(end + 1, text.size()));
    begin = end + 1;
  }
  return heap.text(std::move(result));
}

Value to_json_filter(Heap& heap, const Value& value, const Arguments& arguments) {
  const auto bound = bind_arguments("tojson", arguments, {"ensure_ascii", "indent", "separators", "sort_keys"});
  JsonFormat format;
  format.ensure_ascii = bound[0] && truthy(*bound[0]);
  if (bound[1] && !is_none(*bound[1])) format.indent = require_integer(*bound[1], "the indent of tojson");
  if (bound[2] && !is_none(*bound[2])) {
    const auto* pair = std::get_if<List*>(bound[2]);
    if (!pair || (*pair)->items.size() != 2) throw TemplateError("the separators of tojson must be two strings");
    format.item_separator = require_text((*pair)->items[0], "a separator of tojson").bytes();
    format.key_separator = require_text((*pair)->items[1], "a separator of tojson").bytes();
  }
  format.sort_keys = bound[3] && truthy(*bound[3]);
  return to_json(heap, value, format);
}

}  // namespace

FilterFunction find_filter(std::string_view name) {
  static const std::map<std::string_view, FilterFunction> kFilters = {
      {"abs", absolute},
      {"capitalize", capitalize},
      {"count", length},
      {"d", default_value},
      {"default", default_value},
      {"first", first_item},
      {"float", to_float},
      {"indent", indent},
      {"int", to_integer},
      {"items", dict_items},
      {"join", join_items},
      {"last", last_item},
      {"length", length},
      {"list", to_list},
      {"lower", lower},
      {"map", map_items},
      {"reject", reject_items},
      {"rejectattr", reject_by_attribute},
      {"replace", replace},
      {"reverse", reverse_items},
      {"safe", string},
      {"select", select_items},
      {"selectattr", select_by_attribute},
      {"sort", sort_items},
      {"string", string},
      {"title", title},
      {"tojson", to_json_filter},
      {"trim", trim},
      {"unique", unique_items},
      {"upper", upper},
  };
  const auto found = kFilters.find(name);
  return found == kFilters.end() ? nullptr : found->second;
}

}  // namespace moraine::runtime::jinja
