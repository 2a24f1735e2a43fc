#pragma once

#include <cstdint>
#include <random>
#include <span>
#include <vector>

namespace moraine::tools {

/// The shape of a model's routing.
struct RoutingShape {
  int moe_layers = 0;
  int n_experts = 0;  ///< per layer
  int top_k = 0;
  bool operator==(const RoutingShape&) const = default;
};

/// Port: which experts every MoE layer chooses, decoded token after decoded token.
class RoutingSource {
 public:
  virtual ~RoutingSource() = default;
  virtual const RoutingShape& shape() const = 0;
  /// The next token's choices: [moe_layers × top_k], each layer's ascending. Valid until the next call.
  virtual std::span<const int32_t> next() = 0;
};

/// What a routing is like, in two numbers.
struct RoutingStatistics {
  /// Experts of a layer by how often they are chosen follow rank^−skew (Zipf); 0: all alike.
  double skew = 0.5;
  /// Share of a token's experts that the token before chose in the same layer.
  double overlap = 0.35;
};

/// Choices with given statistics: every layer ranks its experts in an order of its own; an expert of the token before
/// stays with the probability that gives the overlap, the others are drawn by rank. The same seed gives the same
/// choices.
class SyntheticRouting final : public RoutingSource {
 public:
  SyntheticRouting(const RoutingShape& shape, const RoutingStatistics& statistics, uint64_t seed);

  const RoutingShape& shape() const override { return shape_; }
  std::span<const int32_t> next() override;

 private:
  int32_t draw(int layer);
  void next_layer(int layer, double stay);

  RoutingShape shape_;
  double stay_ = 0.0;  // probability that an expert of the token before stays
  std::mt19937_64 random_;
  std::vector<double> cumulative_;  // [n_experts] of the ranks' weights
  std::vector<int32_t> experts_;    // [moe_layers × n_experts] by rank
  std::vector<int32_t> chosen_;     // [moe_layers × top_k]
};

/// Choices that were recorded, from the beginning again after the last.
class RecordedRouting final : public RoutingSource {
 public:
  /// `choices`: [tokens × moe_layers × top_k], at least one token.
  RecordedRouting(const RoutingShape& shape, std::vector<int32_t> choices);

  const RoutingShape& shape() const override { return shape_; }
  std::span<const int32_t> next() override;
  size_t token_count() const { return choices_.size() / per_token_; }

 private:
  RoutingShape shape_;
  size_t per_token_;
  std::vector<int32_t> choices_;
  size_t at_ = 0;
};

/// The statistics of recorded choices [tokens × moe_layers × top_k]: overlap as counted, skew by least squares on log
/// frequency against log rank over the chosen half of the experts.
RoutingStatistics statistics_of(const RoutingShape& shape, std::span<const int32_t> choices);

}  // namespace moraine::tools
