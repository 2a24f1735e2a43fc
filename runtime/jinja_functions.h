#pragma once

#include <chrono>
#include <functional>

#include "runtime/jinja_value.h"

namespace moraine::runtime::jinja {

/// Tells strftime_now() the time.
using Clock = std::function<std::chrono::system_clock::time_point()>;

/// Whether templates have a global function of this name: namespace, dict, range, raise_exception, strftime_now.
bool is_function(std::string_view name);

/// Calls a global function. Throws TemplateError for wrong arguments, and with the template's own message for
/// raise_exception.
Value call_function(Heap& heap, std::string_view name, const Arguments& arguments, const Clock& clock);

}  // namespace moraine::runtime::jinja
