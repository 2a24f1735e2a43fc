#include "runtime/gguf_tensors.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>

#include "quant/error.h"

namespace moraine::runtime {
namespace {

struct NamePair {
  std::string_view gguf;
  std::string_view hf;
};

constexpr std::string_view kBlock = "blk.", kLayer = "model.layers.";

constexpr std::array kModelNames = {
    NamePair{"token_embd.weight", "model.embed_tokens.weight"},
    NamePair{"output_norm.weight", "model.norm.weight"},
    NamePair{"output.weight", "lm_head.weight"},
};

/// Behind "blk.N." and "model.layers.N.".
constexpr std::array kLayerNames = {
    NamePair{"attn_norm.weight", "input_layernorm.weight"},
    NamePair{"ffn_norm.weight", "post_attention_layernorm.weight"},
    // Multi-head latent attention
    NamePair{"attn_q_a.weight", "self_attn.q_a_proj.weight"},
    NamePair{"attn_q_a_norm.weight", "self_attn.q_a_layernorm.weight"},
    NamePair{"attn_q_b.weight", "self_attn.q_b_proj.weight"},
    NamePair{"attn_kv_a_mqa.weight", "self_attn.kv_a_proj_with_mqa.weight"},
    NamePair{"attn_kv_a_norm.weight", "self_attn.kv_a_layernorm.weight"},
    NamePair{"attn_kv_b.weight", "self_attn.kv_b_proj.weight"},
    NamePair{"attn_k_b.weight", "self_attn.k_b_proj.weight"},
    NamePair{"attn_v_b.weight", "self_attn.v_b_proj.weight"},
    // Grouped-query attention
    NamePair{"attn_q.weight", "self_attn.q_proj.weight"},
    NamePair{"attn_k.weight", "self_attn.k_proj.weight"},
    NamePair{"attn_v.weight", "self_attn.v_proj.weight"},
    NamePair{"attn_q.bias", "self_attn.q_proj.bias"},
    NamePair{"attn_k.bias", "self_attn.k_proj.bias"},
    NamePair{"attn_v.bias", "self_attn.v_proj.bias"},
    NamePair{"attn_output.weight", "self_attn.o_proj.weight"},
    // Feed-forward
    NamePair{"ffn_gate.weight", "mlp.gate_proj.weight"},
    NamePair{"ffn_up.weight", "mlp.up_proj.weight"},
    NamePair{"ffn_down.weight", "mlp.down_proj.weight"},
    NamePair{"ffn_gate_inp.weight", "mlp.gate.weight"},
    NamePair{"exp_probs_b.bias", "mlp.gate.e_score_correction_bias"},
    NamePair{"ffn_gate_shexp.weight", "mlp.shared_experts.gate_proj.weight"},
    NamePair{"ffn_up_shexp.weight", "mlp.shared_experts.up_proj.weight"},
    NamePair{"ffn_down_shexp.weight", "mlp.shared_experts.down_proj.weight"},
    // Multi-token prediction
    NamePair{"nextn.eh_proj.weight", "eh_proj.weight"},
    NamePair{"nextn.embed_tokens.weight", "embed_tokens.weight"},
    NamePair{"nextn.enorm.weight", "enorm.weight"},
    NamePair{"nextn.hnorm.weight", "hnorm.weight"},
    NamePair{"nextn.shared_head_head.weight", "shared_head.head.weight"},
    NamePair{"nextn.shared_head_norm.weight", "shared_head.norm.weight"},
};

/// "3.attn_q_a.weight" of "blk.3.attn_q_a.weight", cut behind the number.
struct LayerName {
  std::string_view number;
  std::string_view tail;
};

std::optional<LayerName> layer_name(std::string_view name, std::string_view prefix) {
  if (!name.starts_with(prefix)) return std::nullopt;
  const std::string_view rest = name.substr(prefix.size());
  const size_t dot = rest.find('.');
  if (dot == 0 || dot > 5) return std::nullopt;  // npos included
  const std::string_view number = rest.substr(0, dot);
  const bool is_number = std::all_of(number.begin(), number.end(), [](char c) { return c >= '0' && c <= '9'; });
  if (!is_number) return std::nullopt;
  return LayerName{number, rest.substr(dot + 1)};
}

/// The other name of `name`, whose kind is `from`.
std::optional<std::string> translated(std::string_view name, std::string_view NamePair::*from,
                                      std::string_view NamePair::*to, const NamePair& prefixes) {
  for (const NamePair& pair : kModelNames) {
    if (pair.*from == name) return std::string(pair.*to);
  }
  const auto layer = layer_name(name, prefixes.*from);
  if (!layer) return std::nullopt;
  for (const NamePair& pair : kLayerNames) {
    if (pair.*from == layer->tail) return fmt::format("{}{}.{}", prefixes.*to, layer->number, pair.*to);
  }
  return std::nullopt;
}

/// A tensor [experts, rows, in] of one or, rows of the first before those of the second, two matrices of every expert.
struct Stack {
  std::string_view gguf;
  std::string_view first;
  std::string_view second = {};
};

constexpr std::array kStacks = {
    Stack{"ffn_gate_exps.weight", "gate_proj"},
    Stack{"ffn_up_exps.weight", "up_proj"},
    Stack{"ffn_down_exps.weight", "down_proj"},
    Stack{"ffn_gate_up_exps.weight", "gate_proj", "up_proj"},
};

void add_experts(const quant::TensorInfo& stacked, std::string_view layer, const Stack& stack, const quant::Gguf& gguf,
                 std::vector<quant::TensorInfo>& out) {
  constexpr int64_t kMostExperts = 65536;
  const int64_t parts = stack.second.empty() ? 1 : 2;
  if (stacked.shape.size() != 3 || stacked.shape[0] > kMostExperts || stacked.shape[1] % parts != 0) {
    throw quant::Error(quant::ErrorKind::kBadFile, {.what = "wrong shape of the experts of a layer",
                                                    .file = gguf.files()[static_cast<size_t>(stacked.file)],
                                                    .item = stacked.name,
                                                    .offset = stacked.offset,
                                                    .expected = "[experts, out, in]",
                                                    .got = fmt::format("[{}]", fmt::join(stacked.shape, ", "))});
  }
  const int64_t experts = stacked.shape[0];
  quant::TensorInfo matrix = stacked;
  matrix.shape = {stacked.shape[1] / parts, stacked.shape[2]};
  matrix.size_bytes = stacked.size_bytes / static_cast<uint64_t>(experts * parts);
  for (int64_t expert = 0; expert < experts; ++expert) {
    for (const std::string_view name : {stack.first, stack.second}) {
      if (name.empty()) continue;
      matrix.name = fmt::format("{}{}.mlp.experts.{}.{}.weight", kLayer, layer, expert, name);
      out.push_back(matrix);
      matrix.offset += matrix.size_bytes;
    }
  }
}

bool add_if_stacked(const quant::TensorInfo& tensor, const quant::Gguf& gguf, std::vector<quant::TensorInfo>& out) {
  const auto layer = layer_name(tensor.name, kBlock);
  if (!layer) return false;
  for (const Stack& stack : kStacks) {
    if (layer->tail != stack.gguf) continue;
    add_experts(tensor, layer->number, stack, gguf, out);
    return true;
  }
  return false;
}

}  // namespace

std::optional<std::string> hf_tensor_name(std::string_view gguf_name) {
  return translated(gguf_name, &NamePair::gguf, &NamePair::hf, {kBlock, kLayer});
}

std::optional<std::string> gguf_tensor_name(std::string_view hf_name) {
  return translated(hf_name, &NamePair::hf, &NamePair::gguf, {kBlock, kLayer});
}

quant::Checkpoint gguf_checkpoint(const quant::Gguf& gguf) {
  if (gguf.tensors().empty()) {
    throw quant::Error(quant::ErrorKind::kBadFile, {.what = "the file holds no tensors, only metadata",
                                                    .file = gguf.files().front(),
                                                    .action = "give the file with the model's weights"});
  }
  std::vector<quant::TensorInfo> tensors;
  for (const quant::TensorInfo& tensor : gguf.tensors()) {
    if (add_if_stacked(tensor, gguf, tensors)) continue;
    tensors.push_back(tensor);
    tensors.back().name = hf_tensor_name(tensor.name).value_or(tensor.name);
  }
  return quant::Checkpoint::from_tensors(gguf.files().front(), gguf.files(), std::move(tensors));
}

}  // namespace moraine::runtime
