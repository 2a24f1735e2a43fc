#pragma once

#include <cstdint>
#include <filesystem>
#include <span>
#include <vector>

#include "runtime/model.h"

namespace moraine::runtime {

/// XXH3-64 of the router matrices: which model a predictor belongs to.
uint64_t router_fingerprint(const Model& model);

/// What a router that is asked a layer early gets wrong, learnt from text: per MoE layer a matrix that turns the router
/// input of the layer before into corrections of this layer's early logits. It decides when bytes arrive, never which
/// experts run.
class LinearPredictor {
 public:
  explicit LinearPredictor(const Model& model);

  /// `delta`: [n_routed_experts × hidden] for the early logits of `layer`.
  void set(int layer, std::vector<float> delta);
  bool corrects(int layer) const { return !deltas_[static_cast<size_t>(layer)].empty(); }
  /// logits += delta(layer) · normed
  void correct(int layer, std::span<const float> normed /* [hidden] */,
               std::span<float> logits /* [n_routed_experts] */) const;

  /// A safetensors file: layers.L.delta F32 and the fingerprint as 8 bytes. Throws quant::Error.
  void save(const std::filesystem::path& file) const;
  /// Throws quant::Error(kBadFile) if the file is none of these or belongs to another model.
  static LinearPredictor load(const std::filesystem::path& file, const Model& model);

 private:
  uint64_t fingerprint_;
  int64_t n_experts_;
  int64_t hidden_;
  std::vector<std::vector<float>> deltas_;  // [num_hidden_layers], empty where nothing is corrected
};

}  // namespace moraine::runtime
