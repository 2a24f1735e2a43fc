#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "tools/console.h"

namespace moraine::tools {

/// What a progress bar counts.
enum class ProgressUnit { kBytes, kItems };

/// Progress of a long job on stderr: a bar with rate and remaining time, redrawn in place on a terminal; without one, a
/// line every ten seconds. Jobs that end within a second (on a terminal) or ten show nothing. Not thread-safe.
class ProgressBar {
 public:
  using Clock = std::function<double()>;  ///< seconds, monotonic

  /// `clock` is for tests.
  ProgressBar(Console& console, std::string label, ProgressUnit unit, Clock clock = {});
  /// Erases the bar.
  ~ProgressBar();
  ProgressBar(const ProgressBar&) = delete;
  ProgressBar& operator=(const ProgressBar&) = delete;

  /// Cheap enough to be called for every small step. `note` stands behind the numbers.
  void update(uint64_t done, uint64_t total, std::string_view note = {});

  /// The bar's text, for a width in columns: "loading  [#####     ]  50 %  1.2 GiB of 2.4 GiB  600.0 MiB/s  0:02 left".
  std::string text(uint64_t done, uint64_t total, double elapsed_s, int width, std::string_view note = {}) const;

 private:
  std::string amount(double value) const;

  Console& console_;
  std::string label_;
  ProgressUnit unit_;
  Clock clock_;
  double start_s_;
  double shown_s_;
  uint64_t first_done_ = 0;  // what an earlier run had done already: no part of the rate
  bool started_ = false;
};

/// "0:07", "12:34", "3:02:05".
std::string duration_text(double duration_s);

}  // namespace moraine::tools
