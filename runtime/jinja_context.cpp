#include "runtime/jinja_context.h"

namespace moraine::runtime::jinja {
namespace {

/// `depth`: containers around `json`; bounds the recursion before the heap's own check, which works from inside out.
Value convert(Heap& heap, const quant::Json& json, int depth) {
  if (depth > kMaxValueDepth) throw TemplateError("the context is nested too deeply");
  if (json.is_null()) return None{};
  if (json.is_boolean()) return json.get<bool>();
  if (json.is_number_unsigned() && json.get<uint64_t>() > INT64_MAX) return json.get<double>();
  if (json.is_number_integer()) return json.get<int64_t>();
  if (json.is_number()) return json.get<double>();
  if (json.is_string()) return heap.text(json.get_ref<const std::string&>(), false);
  if (json.is_array()) {
    std::vector<Value> items;
    for (const quant::Json& item : json) items.push_back(convert(heap, item, depth + 1));
    return heap.list(std::move(items));
  }
  if (!json.is_object()) throw TemplateError("the context holds binary data");
  Dict* dict = heap.dict();
  for (const auto& [key, value] : json.items()) {
    heap.set(*dict, heap.text(key, false), convert(heap, value, depth + 1));
  }
  return dict;
}

}  // namespace

Value value_from_json(Heap& heap, const quant::Json& json) {
  return convert(heap, json, 0);
}

}  // namespace moraine::runtime::jinja
