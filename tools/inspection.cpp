#include "tools/inspection.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <map>

#include "quant/error.h"
#include "quant/expert_pack.h"
#include "quant/safetensors.h"
#include "runtime/expert_source.h"
#include "runtime/model_source.h"
#include "runtime/weight_loader.h"
#include "tools/byte_size.h"
#include "tools/model_sizes.h"
#include "tools/planned_model.h"

namespace moraine::tools {
namespace {

constexpr std::array kGroupOrder = {"embedding",      "norms",          "attention", "dense FFN", "router",
                                    "shared experts", "routed experts", "head",      "MTP",       "other"};

bool contains(const std::string& text, const char* part) {
  return text.find(part) != std::string::npos;
}

/// Says of each matrix of an expert that `wanted` does not fit what it gets instead.
std::vector<std::string> fallback_sentences(const quant::ExpertLayout& layout, quant::DType wanted) {
  std::vector<std::string> sentences;
  const auto check = [&](const char* name, const quant::MatrixDesc& matrix) {
    if (matrix.type == wanted) return;
    const int64_t block = quant::block_elements(wanted);
    if (matrix.cols % block != 0) {
      sentences.push_back(fmt::format("{} rows of {} are no multiple of {}'s {}: stored as {}", name, matrix.cols,
                                      quant::dtype_name(wanted), block, quant::dtype_name(matrix.type)));
    } else {
      sentences.push_back(fmt::format("{}: stored as {} instead of {}", name, quant::dtype_name(matrix.type),
                                      quant::dtype_name(wanted)));
    }
  };
  check("gate_proj", layout.gate);
  check("up_proj", layout.up);
  check("down_proj", layout.down);
  return sentences;
}

void add_tensors(Inspection& result, const quant::Checkpoint& checkpoint) {
  std::map<std::pair<std::string, std::string>, TensorGroup> groups;
  for (const auto& [name, tensor] : checkpoint.tensors()) {
    const std::string group = tensor_group_name(name, result.config);
    const std::string dtype(quant::dtype_name(tensor.dtype));
    TensorGroup& sum = groups[{group, dtype}];
    sum.name = group;
    sum.dtype = dtype;
    ++sum.tensor_count;
    sum.size_bytes += tensor.size_bytes;
    result.has_mtp = result.has_mtp || group == "MTP";
    result.tensors.push_back({.name = name,
                              .dtype = dtype,
                              .shape = tensor.shape,
                              .size_bytes = tensor.size_bytes,
                              .file = checkpoint.files()[static_cast<size_t>(tensor.file)].filename().string()});
  }
  for (const char* name : kGroupOrder) {
    for (const auto& [key, group] : groups) {
      if (key.first == name) result.groups.push_back(group);
    }
  }
}

std::string tiers_text(const Inspection& i) {
  std::string text = "\nbytes per tier\n";
  const auto row = [&](const char* name, uint64_t size_bytes, const std::string& note) {
    text += fmt::format("  {:<22} {:>12}  {}\n", name, byte_size_text(size_bytes), note);
  };
  row("resident weights", i.resident_bytes, fmt::format("always in RAM, matrices {}", i.resident_type));
  if (i.config.has_experts()) {
    row("routed experts", i.expert_bytes,
        fmt::format("{} of {} each, {}", i.expert_count, byte_size_text(i.record_bytes), i.expert_type));
  }
  row("KV cache", i.kv_bytes_per_token * static_cast<uint64_t>(i.config.max_position_embeddings),
      fmt::format("{} per token, {} tokens at most", byte_size_text(i.kv_bytes_per_token),
                  i.config.max_position_embeddings));
  row("weights per token", i.bytes_per_token, "what decoding one token has to read");
  return text;
}

std::string attention_text(const runtime::ModelConfig& c) {
  if (!c.is_latent()) return fmt::format("{} kv heads, head_dim {}", c.num_key_value_heads, c.head_dim);
  return fmt::format("q_lora {}, kv_lora {}, nope {}, rope {}, v {}", c.q_lora_rank, c.kv_lora_rank, c.qk_nope_head_dim,
                     c.qk_rope_head_dim, c.v_head_dim);
}

std::string rope_scaling_text(const runtime::RopeScaling& scaling) {
  using Type = runtime::RopeScaling::Type;
  if (scaling.type == Type::kNone) return "";
  return fmt::format(" ({} × {} over {})", scaling.type == Type::kYarn ? "YaRN" : "llama3", scaling.factor,
                     scaling.original_max_position_embeddings);
}

/// The shapes of config.json; fields that the architecture does not have are left out.
quant::Json config_json(const runtime::ModelConfig& c) {
  quant::Json json = {{"model_type", c.model_type},
                      {"num_hidden_layers", c.num_hidden_layers},
                      {"first_k_dense_replace", c.first_k_dense_replace},
                      {"hidden_size", c.hidden_size},
                      {"num_attention_heads", c.num_attention_heads},
                      {"vocab_size", c.vocab_size},
                      {"max_position_embeddings", c.max_position_embeddings},
                      {"num_nextn_predict_layers", c.num_nextn_predict_layers}};
  if (c.is_latent()) {
    json.update({{"q_lora_rank", c.q_lora_rank},
                 {"kv_lora_rank", c.kv_lora_rank},
                 {"qk_nope_head_dim", c.qk_nope_head_dim},
                 {"qk_rope_head_dim", c.qk_rope_head_dim},
                 {"v_head_dim", c.v_head_dim}});
  } else {
    json.update({{"num_key_value_heads", c.num_key_value_heads}, {"head_dim", c.head_dim}});
  }
  if (c.has_experts()) {
    json.update({{"n_routed_experts", c.n_routed_experts},
                 {"moe_intermediate_size", c.moe_intermediate_size},
                 {"num_experts_per_tok", c.num_experts_per_tok},
                 {"n_shared_experts", c.n_shared_experts}});
  }
  return json;
}

/// A model whose files are here: what they hold goes into `result`.
PlannedModel stored_model(Inspection& result, const runtime::ModelSource& model, std::optional<quant::DType> experts,
                          std::optional<quant::DType> resident) {
  const quant::Checkpoint checkpoint = model.checkpoint();
  result.warnings = checkpoint.warnings();
  add_tensors(result, checkpoint);
  PlannedModel planned = planned_model({}, checkpoint, result.config, experts, resident);
  const runtime::ExpertSource& source = planned.whole.source;
  result.expert_count = source.records->experts().size();
  result.record_bytes = source.records->max_record_bytes();
  for (const offload::ExpertId id : source.records->experts()) result.expert_bytes += source.records->record_bytes(id);
  return planned;
}

/// A model that is not here, as DeepSeek publishes it.
PlannedModel published_model(Inspection& result, std::optional<quant::DType> experts,
                             std::optional<quant::DType> resident) {
  PlannedModel planned = planned_model({}, result.config, experts, resident);
  result.resident_type = "as published";
  if (!result.config.has_experts()) return planned;
  result.expert_count = static_cast<uint64_t>((result.config.num_hidden_layers - result.config.first_k_dense_replace) *
                                              result.config.n_routed_experts);
  result.record_bytes = planned.whole.source.layouts.back().record_bytes;
  result.expert_bytes = result.expert_count * result.record_bytes;
  return planned;
}

}  // namespace

std::string tensor_group_name(const std::string& tensor, const runtime::ModelConfig& config) {
  constexpr std::string_view kLayers = "model.layers.";
  if (tensor.starts_with(kLayers)) {
    const std::string number = tensor.substr(kLayers.size(), tensor.find('.', kLayers.size()) - kLayers.size());
    const bool is_number =
        !number.empty() && number.size() < 7 &&
        std::all_of(number.begin(), number.end(), [](char digit) { return digit >= '0' && digit <= '9'; });
    if (is_number && std::stoi(number) >= config.num_hidden_layers) return "MTP";
  }
  if (runtime::is_routed_expert_tensor(tensor)) return "routed experts";
  if (contains(tensor, ".mlp.shared_experts.")) return "shared experts";
  if (contains(tensor, ".mlp.gate.")) return "router";
  if (contains(tensor, ".mlp.")) return "dense FFN";
  if (contains(tensor, "norm")) return contains(tensor, ".self_attn.") ? "attention" : "norms";
  if (contains(tensor, ".self_attn.")) return "attention";
  if (contains(tensor, "embed_tokens")) return "embedding";
  if (tensor.starts_with("lm_head")) return "head";
  return "other";
}

Inspection inspect_model(const std::filesystem::path& path, std::optional<quant::DType> experts,
                         std::optional<quant::DType> resident) {
  Inspection result;
  result.directory = path;
  const auto model = runtime::ModelSource::open(path);
  result.config = model->config();
  result.is_pack = model->is_pack();
  result.kind = model->kind();
  const PlannedModel planned = model->has_weights() ? stored_model(result, *model, experts, resident)
                                                    : published_model(result, experts, resident);
  const ModelForm& whole = planned.whole;
  result.expert_type = whole.source.type_name;
  std::optional<quant::DType> wanted = experts;
  if (result.is_pack) wanted = quant::dtype_from_name(quant::PackIndex::read(path).wanted_type);
  const auto first_moe = static_cast<size_t>(result.config.first_k_dense_replace);
  if (wanted && result.config.has_experts() && first_moe < whole.source.layouts.size()) {
    result.fallbacks = fallback_sentences(whole.source.layouts[first_moe], *wanted);
  }
  if (resident && *resident != quant::DType::kF8E4M3) result.resident_type = quant::dtype_name(*resident);
  result.resident_bytes = whole.shape->resident_bytes();
  result.kv_bytes_per_token = kv_bytes_per_token(*whole.shape);
  const uint64_t moe_layers =
      result.expert_count / static_cast<uint64_t>(std::max<int64_t>(1, result.config.n_routed_experts));
  // A decoded token reads every resident weight but the embedding, of which it needs one row unless it is the head,
  // too.
  const quant::PackedView& embedding = whole.shape->embed_tokens.view;
  const uint64_t unread_bytes =
      result.config.tie_word_embeddings ? 0 : quant::packed_bytes(embedding.type, embedding.rows, embedding.cols);
  result.bytes_per_token = result.resident_bytes - unread_bytes +
                           moe_layers * static_cast<uint64_t>(result.config.num_experts_per_tok) * result.record_bytes;
  return result;
}

std::string inspection_text(const Inspection& i, bool all_tensors) {
  const runtime::ModelConfig& c = i.config;
  std::string text = fmt::format("{}  ({})\n", quant::printable(i.directory.string(), 4096), i.kind);
  text += fmt::format("  {}: {} layers ({} dense), hidden {}, {} heads ({})\n", c.model_type, c.num_hidden_layers,
                      c.has_experts() ? c.first_k_dense_replace : c.num_hidden_layers, c.hidden_size,
                      c.num_attention_heads, attention_text(c));
  if (c.has_experts()) {
    text += fmt::format("  {} routed experts of width {} in {} groups ({} kept), top-{}, {} shared, scale {}\n",
                        c.n_routed_experts, c.moe_intermediate_size, c.n_group, c.topk_group, c.num_experts_per_tok,
                        c.n_shared_experts, c.routed_scaling_factor);
  } else {
    text += fmt::format("  dense, FFN width {}\n", c.intermediate_size);
  }
  text += fmt::format("  vocabulary {}, context {}{}, MTP layers {}\n", c.vocab_size, c.max_position_embeddings,
                      rope_scaling_text(c.rope_scaling),
                      i.has_mtp ? fmt::format("{} (present)", c.num_nextn_predict_layers)
                                : fmt::format("{} (not in the files)", c.num_nextn_predict_layers));
  text += tiers_text(i);
  if (c.has_experts()) text += fmt::format("\nexperts are {}\n", i.expert_type);
  for (const std::string& fallback : i.fallbacks) text += "  " + fallback + "\n";
  if (!i.groups.empty()) text += "\nstored tensors\n";
  for (const TensorGroup& group : i.groups) {
    text += fmt::format("  {:<16} {:<9} {:>7} tensors {:>12}\n", group.name, group.dtype, group.tensor_count,
                        byte_size_text(group.size_bytes));
  }
  if (all_tensors) {
    text += "\n";
    for (const TensorLine& tensor : i.tensors) {
      text += fmt::format("  {:<64} {:<9} [{}]  {} B  {}\n", quant::printable(tensor.name), tensor.dtype,
                          fmt::join(tensor.shape, ", "), tensor.size_bytes, quant::printable(tensor.file));
    }
  }
  return text;
}

quant::Json inspection_json(const Inspection& i, bool all_tensors) {
  quant::Json groups = quant::Json::array();
  for (const TensorGroup& group : i.groups) {
    groups.push_back(
        {{"group", group.name}, {"dtype", group.dtype}, {"tensors", group.tensor_count}, {"bytes", group.size_bytes}});
  }
  quant::Json json = {{"model", i.directory.string()},
                      {"kind", i.kind},
                      {"pack", i.is_pack},
                      {"config", config_json(i.config)},
                      {"mtp", i.has_mtp},
                      {"experts",
                       {{"type", i.expert_type},
                        {"count", i.expert_count},
                        {"record_bytes", i.record_bytes},
                        {"fallbacks", i.fallbacks}}},
                      {"resident", {{"type", i.resident_type}}},
                      {"tiers",
                       {{"resident_bytes", i.resident_bytes},
                        {"expert_bytes", i.expert_bytes},
                        {"kv_bytes_per_token", i.kv_bytes_per_token}}},
                      {"bytes_per_token", i.bytes_per_token},
                      {"groups", std::move(groups)},
                      {"warnings", i.warnings}};
  if (all_tensors) {
    quant::Json tensors = quant::Json::array();
    for (const TensorLine& tensor : i.tensors) {
      tensors.push_back({{"name", tensor.name},
                         {"dtype", tensor.dtype},
                         {"shape", tensor.shape},
                         {"bytes", tensor.size_bytes},
                         {"file", tensor.file}});
    }
    json["tensors"] = std::move(tensors);
  }
  return json;
}

}  // namespace moraine::tools
