#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "quant/json.h"
#include "tools/routing_source.h"

namespace moraine::tools {

/// Facts about the model of a trace; zeros where it does not say.
struct TraceModel {
  int64_t layers = 0;
  int64_t first_moe_layer = 0;
  int64_t experts = 0;
  int64_t top_k = 0;
  int64_t record_bytes = 0;
  int64_t slots = 0;

  RoutingShape shape() const {
    return {static_cast<int>(layers - first_moe_layer), static_cast<int>(experts), static_cast<int>(top_k)};
  }
};

/// One line of a trace.
struct TraceEvent {
  char phase = 0;    ///< as in the format: X, i, b, e, C, M
  std::string name;  ///< "attention", "wait", "experts", "miss", …
  double at_us = 0.0;
  double duration_us = 0.0;
  int64_t layer = -1;
  int64_t expert = -1;
  quant::Json args = {};
};

/// Reads a trace of TraceWriter line by line, in constant memory; one that ends in the middle of a line (a crash) ends
/// with the line before. Throws quant::Error(kBadFile) naming the line for anything else that is no such trace.
TraceModel read_trace(const std::filesystem::path& file, const std::function<void(const TraceEvent&)>& visit);

/// The choices of all decoded tokens (steps of one row) of a trace: [tokens × moe_layers × top_k].
struct RoutingTrace {
  RoutingShape shape;
  std::vector<int32_t> choices;
};
/// Throws quant::Error(kBadFile) if the trace has no whole decoded token.
RoutingTrace read_routing(const std::filesystem::path& file);

}  // namespace moraine::tools
