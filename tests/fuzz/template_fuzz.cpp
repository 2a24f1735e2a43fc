// Arbitrary bytes as a chat template, rendered for a small conversation: the only ways out are a prompt and a
// TemplateError. Bytes after the first zero byte are the text of the user's message.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "quant/error.h"
#include "quant/json.h"
#include "runtime/jinja_context.h"
#include "runtime/jinja_eval.h"
#include "runtime/jinja_parser.h"

using namespace moraine::runtime::jinja;

namespace {

/// Low enough that an endless template costs a few milliseconds, high enough for every published one: the corpus fills
/// with inputs that run into them, and these decide how many inputs are tried per second.
constexpr Limits kLimits{
    .max_steps = 10'000, .max_made_bytes = 4u << 20, .max_text_bytes = 128u << 10, .max_list_items = 2'000};

moraine::quant::Json conversation(std::string_view user_text) {
  using Json = moraine::quant::Json;
  Json call = {{"type", "function"}, {"function", {{"name", "f"}, {"arguments", "{\"x\": 1}"}}}};
  return {{"messages",
           {{{"role", "system"}, {"content", "S"}},
            {{"role", "user"}, {"content", user_text}},
            {{"role", "assistant"}, {"content", nullptr}, {"tool_calls", {call}}},
            {{"role", "tool"}, {"content", "<think>a</think>b"}}}},
          {"tools", nullptr},
          {"add_generation_prompt", true},
          {"n", 1.5}};
}

/// What chat_template.cpp relies on: runs are not empty, alternate and cover the text.
void check_runs(const Text& text) {
  size_t end = 0;
  for (size_t i = 0; i < text.runs().size(); ++i) {
    MORAINE_CHECK(text.runs()[i].end > end);
    MORAINE_CHECK(i == 0 || text.runs()[i].trusted != text.runs()[i - 1].trusted);
    end = text.runs()[i].end;
  }
  MORAINE_CHECK(end == text.size());
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t n_bytes) {
  const std::string_view bytes(reinterpret_cast<const char*>(data), n_bytes);
  const size_t split = std::min(bytes.find('\0'), n_bytes);
  try {
    const Block block = parse_template(bytes.substr(0, split));
    Heap heap(kLimits);
    std::vector<std::pair<std::string, Value>> variables;
    const moraine::quant::Json context = conversation(bytes.substr(std::min(split + 1, n_bytes)));
    for (const auto& [name, value] : context.items()) variables.emplace_back(name, value_from_json(heap, value));
    variables.emplace_back("bos_token", heap.text("<b>", true));
    const Clock clock = [] { return std::chrono::system_clock::time_point(); };
    check_runs(Evaluator(heap, clock, variables).render(block));
  } catch (const TemplateError&) {
    // A refusal is the expected outcome.
  }
  return 0;
}
