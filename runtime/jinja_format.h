#pragma once

#include <optional>
#include <string>

#include "runtime/jinja_value.h"

namespace moraine::runtime::jinja {

/// What `{{ value }}` prints: Python's str(); nothing for undefined. Strings keep their origin; all that is printed for
/// other values counts as untrusted, since numbers and structure may come from the context.
/// Throws TemplateError for namespaces, loops and functions, which have no sensible text.
Value to_text(Heap& heap, const Value& value);

/// A float as Python's repr(): shortest digits that read back the same, 1e+16 and 1e-05 outside of [1e-4, 1e16).
std::string format_float(double value);

struct JsonFormat {
  std::optional<int64_t> indent;  ///< spaces per level; none: one line
  bool ensure_ascii = false;
  bool sort_keys = false;
  std::optional<std::string> item_separator = {};  ///< default ", ", or "," with an indent
  std::optional<std::string> key_separator = {};   ///< default ": "
};

/// The filter `tojson` as transformers defines it: Python's json.dumps without HTML escapes. Origin as for to_text.
Value to_json(Heap& heap, const Value& value, const JsonFormat& format);

}  // namespace moraine::runtime::jinja
