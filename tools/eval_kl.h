#pragma once

#include <cstdint>
#include <filesystem>
#include <span>

#include "tools/console.h"
#include "tools/engine_options.h"

namespace moraine::tools {

struct EvalKlOptions {
  EngineOptions engine;     ///< the model that is judged
  EngineOptions reference;  ///< the one that is right
  std::filesystem::path file;
  int64_t max_tokens = 8192;  ///< of the text; what follows is left out
  int64_t context = 256;      ///< tokens of a window, each a sequence of its own
  bool json = false;
};

/// KL(P‖Q) = Σ P·(ln P − ln Q) in nats, of the distributions that two rows of logits stand for: P the reference's, Q
/// the model's. Infinity or NaN among the logits gives NaN.
double kl_divergence(std::span<const float> reference, std::span<const float> logits);

/// What comparing next-token distributions position by position found.
class KlMeter {
 public:
  /// The logits [vocab] of both for the same position.
  void add(std::span<const float> reference, std::span<const float> logits);

  int64_t positions() const { return positions_; }
  double mean_kl() const;
  double worst_kl() const { return worst_kl_; }
  int64_t worst_position() const { return worst_position_; }  ///< counted in add() calls
  double top1_agreement() const;                              ///< share of positions with the same likeliest token

 private:
  int64_t positions_ = 0;
  int64_t agreements_ = 0;
  double sum_kl_ = 0.0;
  double worst_kl_ = 0.0;
  int64_t worst_position_ = 0;
};

/// Runs `moraine eval kl`: both engines in this process, one window at a time. Returns the exit code.
int eval_kl(const EvalKlOptions& options, Console& console);

}  // namespace moraine::tools
