#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "quant/expert_pack.h"
#include "runtime/model.h"
#include "tools/layer_kind.h"

namespace moraine::tools {

/// What a part of the model must read and compute at least. A multiply-add is 2 FLOP.
struct Cost {
  double weight_bytes = 0.0;  ///< of weights, in the form in which they lie in RAM
  double flop = 0.0;          ///< of matrix products; norms, softmax and activations are left out
  double context_flop = 0.0;  ///< the part of `flop` that grows with the context: queries × cached tokens

  Cost& operator+=(const Cost& other);
};
using StepCosts = PerKind<Cost>;
Cost total_of(const StepCosts& costs);

/// Bytes and operations of a model's steps, from shapes and types alone.
class ModelCosts {
 public:
  /// `layouts`: [num_hidden_layers], meaningful for layers with records: experts or a streamed FFN, which count as
  /// routed.
  ModelCosts(const runtime::Model& model, std::span<const quant::ExpertLayout> layouts);

  /// One decoded token that sees `context` earlier ones. GQA: 4·heads·head_dim FLOP per layer and token seen. MLA in
  /// the absorbed form, 2·heads·(2·kv_lora_rank + rope) FLOP per layer and token seen (DeepSeek-V2 report, "low-rank
  /// key-value joint compression").
  StepCosts decode(double context) const;
  /// A whole prompt of `tokens`, every weight read once; `experts_touched` [num_hidden_layers]: how many different
  /// experts its tokens chose. MLA in the expanded form, 2·heads·(nope + rope + v) FLOP per layer and pair, and
  /// every token's keys and values made once. Logits of the last token only.
  StepCosts prefill(int64_t tokens, std::span<const int64_t> experts_touched) const;

 private:
  /// Weights and FLOP per token of everything but the routed experts and what depends on the context.
  StepCosts resident_;
  Cost embed_row_;
  double decode_seen_flop_ = 0.0;   // per token seen, over all layers
  double prefill_seen_flop_ = 0.0;  // the same
  bool streams_ffns_ = false;
  std::vector<Cost> expert_;   // [num_hidden_layers] one expert, or the streamed FFN, for one token
  std::vector<int64_t> uses_;  // [num_hidden_layers] of these per token
};

}  // namespace moraine::tools
