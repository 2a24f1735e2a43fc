#pragma once

#include "quant/json.h"
#include "runtime/jinja_value.h"

namespace moraine::runtime::jinja {

/// A JSON value as a template sees it: every string in it, keys too, is untrusted. Integers beyond 64 bits signed
/// become floats. Throws TemplateError if it is nested more than kMaxValueDepth deep or exceeds the heap's budget.
Value value_from_json(Heap& heap, const quant::Json& json);

}  // namespace moraine::runtime::jinja
