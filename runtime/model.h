#pragma once

#include <cstdint>
#include <vector>

#include "quant/aligned_buffer.h"
#include "quant/packed_matrix.h"
#include "runtime/model_config.h"

namespace moraine::runtime {

/// A resident weight matrix [out, in] and the memory that holds it.
struct Matrix {
  quant::AlignedBuffer storage;
  quant::PackedView view;

  bool empty() const { return view.rows == 0; }
};

/// SwiGLU feed-forward: down( silu(gate(x)) ⊙ up(x) ).
struct FfnWeights {
  Matrix gate_proj;  // [intermediate, hidden]
  Matrix up_proj;    // [intermediate, hidden]
  Matrix down_proj;  // [hidden, intermediate]
};

/// Resident tensors of one decoder layer, under their names in the checkpoint. Those that the architecture does not
/// have are empty.
struct LayerWeights {
  std::vector<float> input_layernorm;           // [hidden]
  std::vector<float> post_attention_layernorm;  // [hidden]
  Matrix q_proj;                                // [heads × head width, hidden]; GQA, MLA without q_lora_rank
  Matrix k_proj;                                // [kv heads × head_dim, hidden]; GQA
  Matrix v_proj;                                // [kv heads × head_dim, hidden]; GQA
  std::vector<float> q_bias, k_bias, v_bias;    // [rows of the projection]; GQA of Qwen2
  Matrix q_a_proj;                              // [q_lora_rank, hidden]; MLA, down to kv_b_proj
  std::vector<float> q_a_layernorm;             // [q_lora_rank]
  Matrix q_b_proj;                              // [heads × (nope | rope), q_lora_rank]
  Matrix kv_a_proj_with_mqa;                    // [kv_lora_rank | rope, hidden]
  std::vector<float> kv_a_layernorm;            // [kv_lora_rank]
  Matrix kv_b_proj;                             // [heads × (nope | v), kv_lora_rank]
  Matrix o_proj;                                // [hidden, heads × v]
  FfnWeights ffn;                               // the dense FFN, or the shared experts of a MoE layer
  Matrix gate;                                  // router [n_routed_experts, hidden]; empty in a dense layer
  std::vector<float> e_score_correction_bias;   // [n_routed_experts]; V3
};

/// Everything of a model that stays in memory: all but the routed experts, or the FFNs of a dense model that is
/// streamed. The one copy that prefill and decode share.
struct Model {
  ModelConfig config;
  Matrix embed_tokens;               // [vocab, hidden]
  std::vector<LayerWeights> layers;  // [num_hidden_layers]
  std::vector<float> norm;           // [hidden]
  Matrix lm_head;                    // [vocab, hidden]; empty if embed_tokens serves as head

  /// True for a layer of a dense model whose FFN is not here but a record of the expert store.
  bool streams_ffn(int64_t layer) const {
    return !config.has_experts() && layers[static_cast<size_t>(layer)].ffn.gate_proj.empty();
  }
  const Matrix& head() const { return lm_head.empty() ? embed_tokens : lm_head; }

  /// Bytes of all matrices and vectors above, whether their memory is there or not (model_shape).
  uint64_t resident_bytes() const;
};

}  // namespace moraine::runtime
