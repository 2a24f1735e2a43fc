#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "runtime/jinja_budget.h"
#include "runtime/jinja_text.h"

namespace moraine::runtime::jinja {

struct List;
struct Dict;
struct Namespace;
struct Loop;
struct Callable;
struct Macro;  // jinja_ast.h
struct Scope;  // jinja_scope.h

/// The value of what isn't there: prints as nothing, is false and empty; any other use is the error `message`.
struct Undefined {
  std::shared_ptr<const std::string> message;
};

struct None {};

using TextPtr = std::shared_ptr<const Text>;

/// A value of the template language. Strings are shared and immutable; containers belong to the Heap of the rendering.
using Value = std::variant<Undefined, None, bool, int64_t, double, TextPtr, List*, Dict*, Namespace*, Loop*, Callable*>;

/// Python's kinds of sequence that templates can tell apart.
enum class ListKind {
  kList,
  kTuple,
  kView,       ///< dict.keys(), values(), items(): no index, not for tojson
  kGenerator,  ///< result of map, select, …: no index, no length, not for tojson, read once
};

struct List {
  std::vector<Value> items;
  ListKind kind = ListKind::kList;
  int depth = 1;          ///< containers inside each other
  bool consumed = false;  ///< a generator that has been read
};

/// A dictionary in order of insertion. Keys are strings, integers, floats, booleans or none.
struct Dict {
  std::vector<std::pair<Value, Value>> items;
  int depth = 1;

  /// nullptr if there is no such key. Throws TemplateError for a key that Python calls unhashable.
  const Value* find(const Value& key) const;
  const Value* find(std::string_view key) const;

  std::map<std::string_view, size_t> by_text;   ///< string key → place in items; the bytes belong to items
  std::map<double, size_t> by_number;           ///< 1, 1.0 and true are one key, as in Python
  std::map<std::string_view, size_t> by_other;  ///< none
};

/// namespace(): the one thing a template may change.
struct Namespace {
  std::map<std::string, Value, std::less<>> values;
};

/// The `loop` variable of a for statement.
struct Loop {
  const List* items;
  size_t index0 = 0;
  int depth0 = 0;
};

/// Anything that can be called. Exactly one of `macro`, `receiver` or neither (a global function) applies.
struct Callable {
  std::string name;
  Value receiver;                ///< of a method
  const Macro* macro = nullptr;  ///< belongs to the template
  Scope* closure = nullptr;      ///< where the macro was defined
};

/// Arguments of a call, filter or test.
struct Arguments {
  std::vector<Value> positional;
  std::vector<std::pair<std::string, Value>> keyword;
};

/// Makes the values of one rendering, owns its containers and counts their cost. Containers die with the heap: a
/// template can tie them into a knot (a namespace inside itself), so nothing else could own them.
class Heap {
 public:
  explicit Heap(const Limits& limits = {}) : budget_(limits) {}

  Budget& budget() { return budget_; }

  Value text(Text text);
  Value text(std::string_view bytes, bool trusted) { return this->text(Text(std::string(bytes), trusted)); }
  /// `message` is what using the value says, e.g. "'x' is undefined".
  Value undefined(std::string message);
  Value list(std::vector<Value> items, ListKind kind = ListKind::kList);
  Dict* dict();
  /// Adds or replaces. Throws TemplateError for a key that Python calls unhashable.
  void set(Dict& dict, const Value& key, Value value);
  Namespace* make_namespace();
  Loop* loop(const List* items, int depth0);
  Callable* callable(Callable callable);

 private:
  Budget budget_;
  std::deque<List> lists_;
  std::deque<Dict> dicts_;
  std::deque<Namespace> namespaces_;
  std::deque<Loop> loops_;
  std::deque<Callable> callables_;
};

bool is_undefined(const Value& value);
bool is_none(const Value& value);
/// nullptr if it is no string.
const Text* as_text(const Value& value);
/// true for booleans too, as in Python; fills `number`.
bool as_integer(const Value& value, int64_t& number);
/// true for integers, booleans and floats; fills `number`.
bool as_number(const Value& value, double& number);

/// Python's name of the type, for messages: str, int, NoneType, list, …
std::string type_name(const Value& value);
bool truthy(const Value& value);

/// The items that a for loop over `value` sees: items of a sequence, keys, code points; a generator is used up.
/// Throws TemplateError "'int' object is not iterable".
const List* iterate(Heap& heap, const Value& value);
/// Number of items. Throws TemplateError "object of type 'int' has no len()".
int64_t length_of(Heap& heap, const Value& value);

/// Throws the message of an undefined value; nothing for any other.
void require_defined(const Value& value);
/// The integer of an argument. Throws TemplateError naming `what`.
int64_t require_integer(const Value& value, std::string_view what);
/// The string of an argument. Throws TemplateError naming `what`.
const Text& require_text(const Value& value, std::string_view what);

/// Arguments in the order of `names`; absent ones are nullptr. Throws TemplateError naming `callee` for an unknown
/// keyword, a repeated one or too many arguments. Points into `arguments`.
std::vector<const Value*> bind_arguments(std::string_view callee, const Arguments& arguments,
                                         const std::vector<std::string_view>& names);

}  // namespace moraine::runtime::jinja
