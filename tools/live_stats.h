#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <string>

#include "offload/expert_store.h"
#include "tools/console.h"
#include "tools/status_row.h"

namespace moraine::tools {

/// What decoding does at this moment, for `run --stats`: on a terminal in its last row, while the answer scrolls above
/// it; else as a line on stderr every ten seconds. The numbers are those of the last five seconds. Not thread-safe.
class LiveStats {
 public:
  using Counters = std::function<offload::StoreCounters()>;
  using Clock = std::function<double()>;  ///< seconds, monotonic

  /// `counters`: the store's, so far. `clock` is for tests.
  LiveStats(Console& console, Counters counters, Clock clock = {});

  /// After every token, before its text is shown.
  void on_token();

  /// "4.9 tokens/s · hits 61 % · drive 1.38 GB/s · waiting 42 % · guesses 71 % right". What there was
  /// none of is left out.
  static std::string text(double tokens, double seconds, const offload::StoreCounters& counters);

 private:
  struct Moment {
    double at_s = 0.0;
    int64_t tokens = 0;
    offload::StoreCounters counters = {};
  };

  Console& console_;
  Counters counters_;
  Clock clock_;
  StatusRow row_;
  std::deque<Moment> moments_;  // oldest first; the first may be older than the window
  int64_t tokens_ = 0;
  double shown_s_ = 0.0;
};

}  // namespace moraine::tools
