#pragma once

#include "runtime/jinja_value.h"

namespace moraine::runtime::jinja {

// Filters over sequences, named in find_filter(). All throw TemplateError for what can't be iterated.

/// first, last: undefined for an empty sequence.
Value first_item(Heap& heap, const Value& value, const Arguments& arguments);
Value last_item(Heap& heap, const Value& value, const Arguments& arguments);
/// list: a new list of the items, keys or characters.
Value to_list(Heap& heap, const Value& value, const Arguments& arguments);
/// items: (key, value) pairs of a mapping; none of undefined.
Value dict_items(Heap& heap, const Value& value, const Arguments& arguments);
/// join(d='', attribute=none): items as strings with `d` between.
Value join_items(Heap& heap, const Value& value, const Arguments& arguments);
/// map(attribute='a.b', default=…) or map('filter', arguments…).
Value map_items(Heap& heap, const Value& value, const Arguments& arguments);
/// select, reject('test', arguments…); without a test by truth.
Value select_items(Heap& heap, const Value& value, const Arguments& arguments);
Value reject_items(Heap& heap, const Value& value, const Arguments& arguments);
/// selectattr, rejectattr('attribute', 'test', arguments…).
Value select_by_attribute(Heap& heap, const Value& value, const Arguments& arguments);
Value reject_by_attribute(Heap& heap, const Value& value, const Arguments& arguments);
/// reverse: of a string a string, else the items backwards.
Value reverse_items(Heap& heap, const Value& value, const Arguments& arguments);
/// sort(reverse=false, case_sensitive=false, attribute=none): stable.
Value sort_items(Heap& heap, const Value& value, const Arguments& arguments);
/// unique(case_sensitive=false): first of equal items; strings, numbers and booleans only.
Value unique_items(Heap& heap, const Value& value, const Arguments& arguments);

}  // namespace moraine::runtime::jinja
