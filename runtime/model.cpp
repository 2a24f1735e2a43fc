#include "runtime/model.h"

#include "quant/huge_pages.h"

namespace moraine::runtime {
namespace {

uint64_t bytes_of(const Matrix& matrix) {
  if (matrix.view.rows == 0) return 0;
  return quant::mapped_bytes(quant::packed_bytes(matrix.view.type, matrix.view.rows, matrix.view.cols));
}
uint64_t bytes_of(const std::vector<float>& vector) {
  return vector.size() * sizeof(float);
}
uint64_t bytes_of(const FfnWeights& ffn) {
  return bytes_of(ffn.gate_proj) + bytes_of(ffn.up_proj) + bytes_of(ffn.down_proj);
}

}  // namespace

uint64_t Model::resident_bytes() const {
  uint64_t total = bytes_of(embed_tokens) + bytes_of(norm) + bytes_of(lm_head);
  for (const LayerWeights& layer : layers) {
    total += bytes_of(layer.input_layernorm) + bytes_of(layer.post_attention_layernorm) + bytes_of(layer.q_proj) +
             bytes_of(layer.k_proj) + bytes_of(layer.v_proj) + bytes_of(layer.q_bias) + bytes_of(layer.k_bias) +
             bytes_of(layer.v_bias) + bytes_of(layer.q_a_proj) + bytes_of(layer.q_a_layernorm) +
             bytes_of(layer.q_b_proj) + bytes_of(layer.kv_a_proj_with_mqa) + bytes_of(layer.kv_a_layernorm) +
             bytes_of(layer.kv_b_proj) + bytes_of(layer.o_proj) + bytes_of(layer.ffn) + bytes_of(layer.gate) +
             bytes_of(layer.e_score_correction_bias);
  }
  return total;
}

}  // namespace moraine::runtime
