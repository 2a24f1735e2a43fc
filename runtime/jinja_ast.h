#pragma once

#include <memory>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "runtime/jinja_filters.h"
#include "runtime/jinja_operators.h"
#include "runtime/jinja_value.h"

namespace moraine::runtime::jinja {

// The syntax tree of a template. Height is bounded by the parser (kMaxTreeHeight), so that walking and freeing it may
// recurse. Chains of equal rank (a + b + c, a and b and c) are one node each and may be of any length.

struct Expression;
using ExpressionPtr = std::unique_ptr<Expression>;

/// Arguments as written: f(a, b, key=c).
struct CallArguments {
  std::vector<ExpressionPtr> positional;
  std::vector<std::pair<std::string, ExpressionPtr>> keyword;
};

struct Literal {
  Value value;  ///< no container
};
struct Name {
  std::string name;
};
struct GetAttribute {
  ExpressionPtr object;
  std::string name;
};
struct GetItem {
  ExpressionPtr object;
  ExpressionPtr index;
};
struct GetSlice {
  ExpressionPtr object;
  ExpressionPtr start, stop, step;  ///< null where not written
};
struct Call {
  ExpressionPtr callee;
  CallArguments arguments;
};
struct ApplyFilter {
  ExpressionPtr input;  ///< null: the text of the enclosing filter or set block
  FilterFunction filter;
  CallArguments arguments;
};
struct ApplyTest {
  ExpressionPtr input;
  TestFunction test;
  CallArguments arguments;
};
struct Not {
  ExpressionPtr operand;
};
struct Sign {
  bool negative;
  ExpressionPtr operand;
};
struct Logical {
  bool is_and;
  std::vector<ExpressionPtr> operands;
};
struct Arithmetic {
  ExpressionPtr first;
  std::vector<std::pair<ArithmeticOp, ExpressionPtr>> rest;  ///< applied from left to right
};
struct Concatenation {
  std::vector<ExpressionPtr> operands;  ///< a ~ b ~ c
};
struct Comparison {
  ExpressionPtr first;
  std::vector<std::pair<CompareOp, ExpressionPtr>> rest;  ///< a < b < c means a < b and b < c
};
struct Conditional {
  ExpressionPtr test;
  ExpressionPtr yes;
  ExpressionPtr no;  ///< null: undefined
};
struct ListLiteral {
  ListKind kind;
  std::vector<ExpressionPtr> items;
};
struct DictLiteral {
  std::vector<std::pair<ExpressionPtr, ExpressionPtr>> items;
};

struct Expression {
  std::variant<Literal, Name, GetAttribute, GetItem, GetSlice, Call, ApplyFilter, ApplyTest, Not, Sign, Logical,
               Arithmetic, Concatenation, Comparison, Conditional, ListLiteral, DictLiteral>
      node;
  int line;
  int height;
};

struct Statement;
using Block = std::vector<Statement>;

/// Left side of an assignment.
struct Target {
  std::string name;           ///< empty for a tuple
  std::string attribute;      ///< set ns.attribute; else empty
  std::vector<Target> items;  ///< of a tuple
  bool is_tuple = false;
};

struct Parameter {
  std::string name;
  ExpressionPtr default_value;  ///< null if there is none
};

/// What a macro, or the body of a call block, is made of.
struct Macro {
  std::string name;
  std::vector<Parameter> parameters;
  Block body;
};

struct Output {
  ExpressionPtr value;
};
struct If {
  std::vector<std::pair<ExpressionPtr, Block>> branches;  ///< if, elif, …
  Block otherwise;
};
struct For {
  Target target;
  ExpressionPtr iterable;
  ExpressionPtr condition;  ///< null if there is none
  Block body;
  Block otherwise;
};
struct Set {
  Target target;
  ExpressionPtr value;
};
struct SetBlock {
  Target target;
  ExpressionPtr filter;  ///< null if there is none
  Block body;
};
struct DefineMacro {
  std::unique_ptr<Macro> macro;
};
struct CallBlock {
  std::unique_ptr<Macro> caller;
  ExpressionPtr call;  ///< holds a Call
};
struct FilterBlock {
  ExpressionPtr filter;
  Block body;
};
struct With {
  std::vector<std::pair<Target, ExpressionPtr>> variables;
  Block body;
};
/// {% generation %}: a scope of its own that marks what the model wrote; the marks are of no use here.
struct Generation {
  Block body;
};
struct Break {};
struct Continue {};

struct Statement {
  std::variant<Output, If, For, Set, SetBlock, DefineMacro, CallBlock, FilterBlock, With, Generation, Break, Continue>
      node;
  int line;
};

}  // namespace moraine::runtime::jinja
