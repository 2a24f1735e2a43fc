#pragma once

#include <cstdint>
#include <deque>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "tools/trace_file.h"
#include "tools/trace_heat_map.h"
#include "tools/trace_timeline.h"

namespace moraine::tools {

/// What a trace adds up to, and its last steps whole, for a picture.
class TraceSummary {
 public:
  /// Reads the trace; the last `steps` steps are kept for the timeline.
  TraceSummary(const std::filesystem::path& file, size_t steps);

  /// Sums for people.
  std::string text() const;
  /// One HTML page with everything in it: sums, heat maps of experts, timelines of the last steps. No script, nothing
  /// from elsewhere.
  std::string html(const std::string& title) const;

 private:
  void add(const TraceEvent& event, size_t steps);
  /// Into the last step, as long as there is room.
  template <typename Item>
  void keep(std::vector<Item>& items, const Item& item);
  double all_s() const;
  std::string steps_text() const;
  std::string experts_text() const;
  std::string times_html() const;

  TraceModel model_;
  std::map<std::string, double> seconds_;  // by name of call
  ExpertCountsMap experts_;
  ExpertCounts total_;
  uint64_t step_count_ = 0, decode_steps_ = 0;
  double first_us_ = 0.0, last_us_ = 0.0;
  int reads_now_ = 0;
  std::deque<TraceStep> last_steps_;
};

}  // namespace moraine::tools
