#pragma once

#include "runtime/jinja_value.h"

namespace moraine::runtime::jinja {

/// Whether `object.name` is a method of strings, dictionaries, lists or `loop` that templates may call.
bool has_method(const Value& object, std::string_view name);

/// Calls `object.name(arguments)` with Python's meaning. Throws TemplateError for wrong arguments or if there is no
/// such method; methods that change a value do not exist, as in Jinja's immutable sandbox.
Value call_method(Heap& heap, const Value& object, std::string_view name, const Arguments& arguments);

/// sep.join(items): every item must be a string. Throws TemplateError otherwise.
Value join_texts(Heap& heap, const Text& separator, const std::vector<Value>& items);

}  // namespace moraine::runtime::jinja
