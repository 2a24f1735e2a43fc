#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace moraine::runtime {

/// How the next token is drawn. Filters apply in this order: temperature, top_k, top_p, min_p.
struct SamplingOptions {
  double temperature = 0.6;  ///< 0 = greedy: always the likeliest token
  int32_t top_k = 0;         ///< keep the k likeliest; 0 = all
  double top_p = 0.95;       ///< keep the smallest set whose probability reaches p
  double min_p = 0.0;        ///< drop tokens below min_p × the likeliest one's probability
  uint64_t seed = 0;

  /// Throws quant::Error(kUsage) that names every value out of range at once.
  void validate() const;
};

/// Draws tokens; the same options and logits give the same tokens on every machine.
class Sampler {
 public:
  /// Ids from `vocab_size` on are padding rows of the head and never drawn.
  Sampler(const SamplingOptions& options, int32_t vocab_size);

  int32_t sample(std::span<const float> logits);

 private:
  /// Uniform in [0, 1) from SplitMix64, 53 bits.
  double uniform();

  SamplingOptions options_;
  int32_t vocab_size_;
  uint64_t state_;
  std::vector<int32_t> order_;  // candidate ids
  std::vector<double> weight_;  // unnormalised probability of order_[i]
};

/// The likeliest of the first `vocab_size` tokens; the lowest id on ties.
int32_t argmax_token(std::span<const float> logits, int32_t vocab_size);

}  // namespace moraine::runtime
