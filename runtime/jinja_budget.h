#pragma once

#include <cstddef>
#include <cstdint>

#include "runtime/jinja_error.h"

namespace moraine::runtime::jinja {

/// What one rendering may cost. Templates come from model files: a bad one must end with an error, soon and cheaply.
struct Limits {
  uint64_t max_steps = 10'000'000;        ///< expressions evaluated, items visited, 256-byte blocks scanned
  uint64_t max_made_bytes = 1024u << 20;  ///< all strings and containers made, live or not
  size_t max_text_bytes = 64u << 20;      ///< one string, and the output
  size_t max_list_items = 1'000'000;      ///< one list or dictionary
  int max_eval_depth = 1000;              ///< nested evaluations, over all macro calls
  int max_macro_depth = 100;              ///< macro calls inside each other
};

/// Lists and dictionaries inside each other, whether from the template or from the context.
inline constexpr int kMaxValueDepth = 100;
/// range() refuses more items, as Jinja's sandbox does.
inline constexpr int64_t kMaxRangeItems = 100'000;

/// Counts what a rendering has used; every method throws TemplateError once a limit is passed.
class Budget {
 public:
  explicit Budget(const Limits& limits = {}) : limits_(limits) {}

  const Limits& limits() const { return limits_; }

  void step(uint64_t count = 1) {
    steps_ += count;
    if (steps_ > limits_.max_steps) throw TemplateError("the template runs too long (step limit)");
  }

  /// Bytes read by an operation whose cost grows with the length of a string.
  void scan(uint64_t bytes) { step(bytes / 256); }

  /// Memory made; `bytes` may be of one string or container.
  void made(uint64_t bytes) {
    made_bytes_ += bytes;
    if (made_bytes_ > limits_.max_made_bytes) throw TemplateError("the template uses too much memory (byte limit)");
  }

  void check_text(size_t bytes) const {
    if (bytes > limits_.max_text_bytes) throw TemplateError("the template makes a string that is too long");
  }

  void check_items(size_t items) const {
    if (items > limits_.max_list_items) throw TemplateError("the template makes a list that is too long");
  }

 private:
  Limits limits_;
  uint64_t steps_ = 0;
  uint64_t made_bytes_ = 0;
};

}  // namespace moraine::runtime::jinja
