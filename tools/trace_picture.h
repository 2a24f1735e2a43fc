#pragma once

#include <cstdint>
#include <deque>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "tools/trace_file.h"

namespace moraine::tools {

/// What a trace adds up to, and its last steps whole, for a picture.
class TraceSummary {
 public:
  /// Reads the trace; the last `steps` steps are kept for the timeline.
  TraceSummary(const std::filesystem::path& file, size_t steps);

  /// Sums for people.
  std::string text() const;
  /// One HTML page with everything in it: sums, timeline of the last steps, a heat map of experts. No script, nothing
  /// from elsewhere.
  std::string html(const std::string& title) const;

 private:
  /// What the store did with an expert.
  struct ExpertCounts {
    uint64_t hits = 0, misses = 0, late = 0, prefetches = 0;
  };
  struct Step {
    int64_t rows = 0;
    double begin_us = 0.0;
    std::vector<TraceEvent> spans;              // calls and waits
    std::vector<std::pair<double, int>> reads;  // when, how many are under way from then on
  };

  void add(const TraceEvent& event, size_t steps);
  std::string timeline_svg(const Step& step) const;
  std::string heat_map_svg() const;

  TraceModel model_;
  std::map<std::string, double> seconds_;                        // by name of call
  std::map<std::pair<int64_t, int64_t>, ExpertCounts> experts_;  // by (layer, expert)
  ExpertCounts total_;
  uint64_t step_count_ = 0, decode_steps_ = 0;
  double first_us_ = 0.0, last_us_ = 0.0;
  std::deque<Step> last_steps_;
};

}  // namespace moraine::tools
