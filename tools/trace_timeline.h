#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "tools/trace_file.h"

namespace moraine::tools {

/// What a trace's spans are called for people, and their colour, in the order in which they are drawn. The colours are
/// those of Okabe and Ito (told apart by every kind of colour vision) and a violet.
struct TraceLane {
  std::string_view name;   ///< in the trace
  std::string_view label;  ///< on the page
  std::string_view color;
};
inline constexpr TraceLane kTraceLanes[] = {
    {"attention", "attention", "#0072b2"},  {"route", "router", "#6a51a3"},
    {"shared", "shared expert", "#56b4e9"}, {"routed", "experts", "#009e73"},
    {"wait", "wait for drive", "#d55e00"},  {"dense FFN", "dense FFN", "#cc79a7"},
    {"embed", "embedding", "#888888"},      {"head", "head", "#e69f00"}};

/// One step of a trace.
struct TraceStep {
  int64_t rows = 0;
  double begin_us = 0.0;
  std::vector<TraceEvent> spans = {};              // calls and waits
  std::vector<std::pair<double, int>> reads = {};  // when, how many are under way from then on
  int reads_before = 0;                            // under way at its begin
  bool is_cut = false;                             // it had more than is kept

  /// Of its last span; its begin if it has none.
  double end_us() const;
  /// Sum of the spans of this name.
  double spent_us(std::string_view name) const;
};

/// A step as SVG: a ruler of layers, a lane for each kind of call, reads under way, an axis of milliseconds.
std::string timeline_svg(const TraceStep& step);

}  // namespace moraine::tools
