#pragma once

#include <cstddef>
#include <string_view>

#include "runtime/jinja_ast.h"

namespace moraine::runtime::jinja {

inline constexpr size_t kMaxTemplateBytes = 1u << 20;

/// Parses a whole template. Throws TemplateError with a line for a syntax error, a template that is too long or nested
/// too deeply, and for what Moraine doesn't support, by name.
Block parse_template(std::string_view source);

}  // namespace moraine::runtime::jinja
