#pragma once

#include <deque>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/jinja_value.h"

namespace moraine::runtime::jinja {

/// Variables of the template, of one turn of a loop, or of one macro call. Lookup goes outwards, assignment stays here.
struct Scope {
  Scope* parent = nullptr;
  std::map<std::string, Value, std::less<>> names;
  bool captured = false;  ///< a macro defined here may outlive it
};

/// Owns all scopes of a rendering; used ones are handed out again unless a macro holds them.
class ScopePool {
 public:
  Scope* open(Heap& heap, Scope* parent) {
    if (!free_.empty()) {
      Scope* scope = free_.back();
      free_.pop_back();
      scope->parent = parent;
      return scope;
    }
    heap.budget().made(sizeof(Scope));
    Scope* scope = &scopes_.emplace_back();
    scope->parent = parent;
    return scope;
  }

  void close(Scope* scope) {
    if (scope->captured) return;
    scope->names.clear();
    free_.push_back(scope);
  }

  /// Keeps `scope` and those around it for the rest of the rendering.
  static void capture(Scope* scope) {
    for (; scope && !scope->captured; scope = scope->parent) scope->captured = true;
  }

  /// nullptr if no scope from `scope` outwards has the name.
  static const Value* find(const Scope* scope, std::string_view name) {
    for (; scope; scope = scope->parent) {
      const auto found = scope->names.find(name);
      if (found != scope->names.end()) return &found->second;
    }
    return nullptr;
  }

 private:
  std::deque<Scope> scopes_;
  std::vector<Scope*> free_;
};

}  // namespace moraine::runtime::jinja
