#pragma once

#include "runtime/jinja_value.h"

namespace moraine::runtime::jinja {

/// `value | name(arguments)`. Throws TemplateError for wrong types or arguments.
using FilterFunction = Value (*)(Heap&, const Value&, const Arguments&);
/// `value is name(arguments)`.
using TestFunction = bool (*)(Heap&, const Value&, const Arguments&);

/// nullptr if Moraine has no such filter.
FilterFunction find_filter(std::string_view name);
/// nullptr if Moraine has no such test.
TestFunction find_test(std::string_view name);

}  // namespace moraine::runtime::jinja
