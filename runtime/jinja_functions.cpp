#include "runtime/jinja_functions.h"

#include <fmt/format.h>

#include <ctime>

#include "runtime/jinja_format.h"

namespace moraine::runtime::jinja {
namespace {

constexpr size_t kNodeBytes = 100;  // of a name in a namespace, about

/// The one positional dictionary of namespace() and dict(), if there is one.
const Dict* dict_argument(std::string_view callee, const Arguments& arguments) {
  if (arguments.positional.empty()) return nullptr;
  const auto* dict = std::get_if<Dict*>(&arguments.positional[0]);
  if (!dict || arguments.positional.size() > 1) {
    throw TemplateError(fmt::format("{}() takes one dictionary and named values", callee));
  }
  return *dict;
}

Value make_namespace(Heap& heap, const Arguments& arguments) {
  Namespace* space = heap.make_namespace();
  if (const Dict* dict = dict_argument("namespace", arguments)) {
    for (const auto& [key, value] : dict->items) {
      const Text& name = require_text(key, "a name in a namespace");
      heap.budget().step();
      heap.budget().made(kNodeBytes + name.size());
      space->values[std::string(name.bytes())] = value;
    }
  }
  for (const auto& [name, value] : arguments.keyword) space->values[name] = value;
  return space;
}

Value make_dict(Heap& heap, const Arguments& arguments) {
  Dict* dict = heap.dict();
  if (const Dict* source = dict_argument("dict", arguments)) {
    heap.budget().step(source->items.size());
    for (const auto& [key, value] : source->items) heap.set(*dict, key, value);
  }
  for (const auto& [name, value] : arguments.keyword) heap.set(*dict, heap.text(name, true), value);
  return dict;
}

Value range(Heap& heap, const Arguments& arguments) {
  const auto bound = bind_arguments("range", arguments, {"start", "stop", "step"});
  if (!bound[0]) throw TemplateError("range needs a number");
  const int64_t first = require_integer(*bound[0], "the argument of range");
  const int64_t start = bound[1] ? first : 0;
  const int64_t stop = bound[1] ? require_integer(*bound[1], "the argument of range") : first;
  const int64_t step = bound[2] ? require_integer(*bound[2], "the step of range") : 1;
  if (step == 0) throw TemplateError("range() step must not be zero");
  std::vector<Value> items;
  for (int64_t i = start; step > 0 ? i < stop : i > stop;) {
    if (items.size() >= static_cast<size_t>(kMaxRangeItems)) {
      throw TemplateError(fmt::format("Range too big. The sandbox blocks ranges larger than {}.", kMaxRangeItems));
    }
    heap.budget().step();
    items.push_back(i);
    if (__builtin_add_overflow(i, step, &i)) break;
  }
  return heap.list(std::move(items));
}

[[noreturn]] void raise_exception(Heap& heap, const Arguments& arguments) {
  const auto bound = bind_arguments("raise_exception", arguments, {"message"});
  if (!bound[0]) throw TemplateError("the template raised an exception");
  throw TemplateError(std::string(as_text(to_text(heap, *bound[0]))->bytes()));
}

/// strftime in local time, as transformers' datetime.now().strftime(format).
Value strftime_now(Heap& heap, const Arguments& arguments, const Clock& clock) {
  constexpr size_t kMaxFormatBytes = 256;
  constexpr size_t kMaxResultBytes = 4096;
  const auto bound = bind_arguments("strftime_now", arguments, {"format"});
  if (!bound[0]) throw TemplateError("strftime_now needs a format");
  const Text& text = require_text(*bound[0], "the format of strftime_now");
  if (text.size() > kMaxFormatBytes || text.bytes().find('\0') != std::string_view::npos) {
    throw TemplateError("the format of strftime_now is too long or holds a zero byte");
  }
  const std::time_t now = std::chrono::system_clock::to_time_t(clock());
  std::tm local{};
  localtime_r(&now, &local);
  char buffer[kMaxResultBytes];
  // The mark behind the format tells an empty result from one that did not fit.
  const size_t length = std::strftime(buffer, sizeof buffer, (std::string(text.bytes()) + ".").c_str(), &local);
  if (length == 0) throw TemplateError("the result of strftime_now is too long");
  const bool trusted = text.runs().size() == 1 && text.runs()[0].trusted;
  return heap.text(std::string_view(buffer, length - 1), trusted);
}

}  // namespace

bool is_function(std::string_view name) {
  return name == "namespace" || name == "dict" || name == "range" || name == "raise_exception" ||
         name == "strftime_now";
}

Value call_function(Heap& heap, std::string_view name, const Arguments& arguments, const Clock& clock) {
  if (name == "namespace") return make_namespace(heap, arguments);
  if (name == "dict") return make_dict(heap, arguments);
  if (name == "range") return range(heap, arguments);
  if (name == "strftime_now") return strftime_now(heap, arguments, clock);
  raise_exception(heap, arguments);
}

}  // namespace moraine::runtime::jinja
