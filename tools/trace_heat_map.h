#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "tools/trace_file.h"

namespace moraine::tools {

/// What the store did with an expert, or with all.
struct ExpertCounts {
  uint64_t hits = 0, misses = 0, late = 0, prefetches = 0;

  uint64_t wanted() const { return hits + misses + late; }
};
/// By (layer, expert).
using ExpertCountsMap = std::map<std::pair<int64_t, int64_t>, ExpertCounts>;

/// Three maps as HTML: hits, misses (late prefetches among them) and prefetches, each with a row per layer, a column
/// per expert and its own scale; beside the first the share of hits in every layer.
std::string heat_maps_html(const TraceModel& model, const ExpertCountsMap& experts);

/// Where the colours of a map change: the least count of each of at most five levels, ascending from 1, spaced by a
/// constant factor. `most`: the largest count.
std::vector<uint64_t> heat_levels(uint64_t most);

}  // namespace moraine::tools
