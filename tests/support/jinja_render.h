#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "quant/json.h"
#include "runtime/jinja_context.h"
#include "runtime/jinja_eval.h"
#include "runtime/jinja_parser.h"

namespace moraine::testing {

/// What `source` prints for the variables of the JSON object `context`; the clock stands at `time`.
inline runtime::jinja::Text render_jinja(std::string_view source, std::string_view context = "{}",
                                         const runtime::jinja::Limits& limits = {}, std::time_t time = 0) {
  namespace jinja = runtime::jinja;
  const jinja::Block block = jinja::parse_template(source);
  jinja::Heap heap(limits);
  std::vector<std::pair<std::string, jinja::Value>> variables;
  const quant::Json json = quant::parse_json(context, "context");
  for (const auto& [name, value] : json.items()) variables.emplace_back(name, jinja::value_from_json(heap, value));
  const jinja::Clock clock = [time] { return std::chrono::system_clock::from_time_t(time); };
  return jinja::Evaluator(heap, clock, variables).render(block);
}

inline std::string jinja_string(std::string_view source, std::string_view context = "{}") {
  return std::string(render_jinja(source, context).bytes());
}

/// The message of the TemplateError that `source` ends with, as "line: message"; "no error" if there is none.
inline std::string jinja_error(std::string_view source, std::string_view context = "{}",
                               const runtime::jinja::Limits& limits = {}) {
  try {
    render_jinja(source, context, limits);
  } catch (const runtime::jinja::TemplateError& error) {
    return std::to_string(error.line()) + ": " + error.what();
  }
  return "no error";
}

/// What the expression prints, and the error it ends with.
inline std::string jinja_value(std::string_view expression, std::string_view context = "{}") {
  return jinja_string("{{ " + std::string(expression) + " }}", context);
}
inline std::string jinja_value_error(std::string_view expression, std::string_view context = "{}") {
  return jinja_error("{{ " + std::string(expression) + " }}", context);
}

}  // namespace moraine::testing
