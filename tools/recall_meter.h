#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "quant/json.h"
#include "runtime/linear_predictor.h"
#include "runtime/model.h"
#include "runtime/router.h"
#include "tools/routing_probe.h"

namespace moraine::tools {

/// A layer's router applied to any state, in plain f32: what DenseBackend::predict_route() computes on a backend.
class EarlyRouter {
 public:
  explicit EarlyRouter(const runtime::Model& model);
  bool has(int layer) const;
  /// Logits [rows, n_routed_experts] of `layer` for `states` [rows, hidden].
  std::vector<float> logits(int layer, std::span<const float> states) const;

 private:
  const runtime::Model& model_;
  std::vector<std::vector<float>> gates_;  // [num_hidden_layers] [n_routed_experts × hidden], empty in dense layers
};

/// From what a layer's experts are guessed.
enum class GuessSource { kPostAttention, kWithShared, kTwoAhead, kOwnInput, kTrained };
inline constexpr std::array kGuessSources = {GuessSource::kPostAttention, GuessSource::kWithShared,
                                             GuessSource::kTwoAhead, GuessSource::kOwnInput, GuessSource::kTrained};
const char* guess_source_name(GuessSource source);

/// How many of the experts wanted were among the guessed ones.
struct RecallCount {
  uint64_t wanted = 0;
  uint64_t found = 0;       ///< among as many guesses as are wanted: recall and precision alike
  uint64_t found_wide = 0;  ///< among twice as many

  std::optional<double> recall() const;
  std::optional<double> wide_recall() const;
};

/// Counts, per MoE layer, how well each source would have told the experts that the router then chose.
class RecallMeter final : public RoutingListener {
 public:
  /// `trained` may be null; both outlive this.
  RecallMeter(const runtime::Model& model, const runtime::LinearPredictor* trained);

  void routed(int layer, std::span<const float> state, std::span<const float> normed,
              std::span<const float> logits) override;
  void combined(int layer, std::span<const float> with_shared, std::span<const float> output) override;

  RecallCount count(GuessSource source, int layer) const {
    return counts_[static_cast<size_t>(source)].at(static_cast<size_t>(layer));
  }
  /// Over all layers.
  RecallCount total(GuessSource source) const;

  std::string text() const;
  quant::Json json() const;

 private:
  struct Guess {
    int layer = -1;
    std::vector<float> logits;  // [rows, n_routed_experts]
  };
  void compare(GuessSource source, int layer, std::span<const float> logits);
  void make_guess(GuessSource source, int layer, std::span<const float> states);

  const runtime::Model& model_;
  const runtime::LinearPredictor* trained_;
  EarlyRouter early_;
  runtime::Router router_;
  std::array<Guess, kGuessSources.size()> guesses_;
  Guess next_two_ahead_;                                               // made one layer before its turn to be compared
  std::array<std::vector<RecallCount>, kGuessSources.size()> counts_;  // each [num_hidden_layers]
};

}  // namespace moraine::tools
