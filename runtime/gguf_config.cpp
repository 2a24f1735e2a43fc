#include "runtime/gguf_config.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numbers>
#include <span>
#include <vector>

#include "quant/error.h"
#include "quant/json.h"
#include "runtime/gguf_keys.h"

namespace moraine::runtime {
namespace {

using quant::Json;

const quant::TensorInfo* find_tensor(const quant::Gguf& gguf, std::string_view name) {
  const auto found = std::find_if(gguf.tensors().begin(), gguf.tensors().end(),
                                  [&](const quant::TensorInfo& tensor) { return tensor.name == name; });
  return found == gguf.tensors().end() ? nullptr : &*found;
}

/// Rows of the embedding: what the model has, whatever the vocabulary says.
int64_t vocab_size(GgufKeys& keys, const quant::Gguf& gguf) {
  const quant::TensorInfo* embedding = find_tensor(gguf, "token_embd.weight");
  if (embedding != nullptr && embedding->shape.size() == 2) return embedding->shape.front();
  if (keys.has(".vocab_size")) return keys.integer(".vocab_size");
  const quant::GgufArray* tokens = keys.strings("tokenizer.ggml.tokens");
  return tokens != nullptr ? static_cast<int64_t>(tokens->count) : 0;
}

void add_common(GgufKeys& keys, const quant::Gguf& gguf, Json& config) {
  config["vocab_size"] = vocab_size(keys, gguf);
  config["hidden_size"] = keys.integer(".embedding_length");
  config["intermediate_size"] = keys.integer(".feed_forward_length");
  config["num_attention_heads"] = keys.integer(".attention.head_count");
  config["max_position_embeddings"] = keys.integer(".context_length");
  config["rms_norm_eps"] = keys.number(".attention.layer_norm_rms_epsilon");
  config["rope_theta"] = keys.number_or(".rope.freq_base", 10000.0);
  config["hidden_act"] = "silu";
  config["tie_word_embeddings"] =
      find_tensor(gguf, "output.weight") == nullptr && find_tensor(gguf, "token_embd.weight") != nullptr;
  if (keys.has("tokenizer.ggml.bos_token_id")) config["bos_token_id"] = keys.integer("tokenizer.ggml.bos_token_id");
  if (keys.has("tokenizer.ggml.eos_token_id")) config["eos_token_id"] = keys.integer("tokenizer.ggml.eos_token_id");
}

void add_yarn(GgufKeys& keys, Json& config) {
  const std::string type = keys.text(".rope.scaling.type").value_or("none");
  if (type == "none") return;
  if (type != "yarn") {
    keys.fault(".rope.scaling.type",
               fmt::format("'{}' is not supported; this version knows 'yarn'", quant::printable(type)));
    return;
  }
  // Files keep 0.1 × mscale_all_dim; every published model has mscale equal to it, so that cos and sin stay as they
  // are.
  constexpr double kDigits = 1e9;  // beyond an f32's: takes away what the multiplication by 10 leaves
  const double mscale = std::round(10.0 * keys.number_or(".rope.scaling.yarn_log_multiplier", 0.0) * kDigits) / kDigits;
  config["rope_scaling"] = {{"type", "yarn"},
                            {"factor", keys.number(".rope.scaling.factor")},
                            {"original_max_position_embeddings", keys.integer(".rope.scaling.original_context_length")},
                            {"beta_fast", keys.number_or(".rope.scaling.yarn_beta_fast", 32.0)},
                            {"beta_slow", keys.number_or(".rope.scaling.yarn_beta_slow", 1.0)},
                            {"mscale", mscale},
                            {"mscale_all_dim", mscale}};
}

void add_mla(GgufKeys& keys, const quant::Gguf& gguf, Json& config) {
  const int64_t heads = keys.integer(".attention.head_count");
  const int64_t rope = keys.integer(".rope.dimension_count");
  // Newer files describe the latent attention in key_length and value_length, and a head's widths in the _mla keys.
  const bool newer = keys.has(".attention.key_length_mla");
  const char* key_length = newer ? ".attention.key_length_mla" : ".attention.key_length";
  const int64_t nope = keys.integer(key_length) - rope;
  if (nope < 1) keys.fault(key_length, fmt::format("is not more than rope.dimension_count ({})", rope));
  config["num_key_value_heads"] = heads;
  if (keys.has(".attention.q_lora_rank")) config["q_lora_rank"] = keys.integer(".attention.q_lora_rank");
  config["kv_lora_rank"] = keys.integer(".attention.kv_lora_rank");
  config["qk_rope_head_dim"] = rope;
  config["qk_nope_head_dim"] = nope;
  config["v_head_dim"] = keys.integer(newer ? ".attention.value_length_mla" : ".attention.value_length");
  for (const quant::TensorInfo& tensor : gguf.tensors()) {
    // kv_b_proj is put together of attn_k_b and attn_v_b by their shapes alone.
    if (!tensor.name.ends_with(".attn_k_b.weight") || tensor.shape.size() != 3 || tensor.shape[2] == nope) continue;
    keys.fault(key_length, fmt::format("leaves {} without rope, but {} has {}", nope, quant::printable(tensor.name),
                                       tensor.shape[2]));
    return;
  }
}

/// Files converted before autumn 2025 do not say V3's groups. 256 experts behind a sigmoid are V3.
constexpr int64_t kV3Experts = 256, kV3Groups = 8, kV3GroupsUsed = 4;

void add_experts(GgufKeys& keys, Json& config) {
  constexpr int64_t kSigmoid = 2;
  const bool sigmoid = keys.integer_or(".expert_gating_func", 1) == kSigmoid;
  const int64_t experts = keys.integer(".expert_count");
  const bool unsaid_v3 = sigmoid && experts == kV3Experts;
  config["model_type"] = sigmoid ? "deepseek_v3" : "deepseek_v2";
  config["scoring_func"] = sigmoid ? "sigmoid" : "softmax";
  config["n_routed_experts"] = experts;
  config["num_experts_per_tok"] = keys.integer(".expert_used_count");
  config["n_shared_experts"] = keys.integer(".expert_shared_count");
  config["moe_intermediate_size"] = keys.integer(".expert_feed_forward_length");
  config["first_k_dense_replace"] = keys.integer_or(".leading_dense_block_count", 0);
  config["norm_topk_prob"] = keys.boolean_or(".expert_weights_norm", sigmoid);
  config["routed_scaling_factor"] = keys.number_or(".expert_weights_scale", 1.0);
  const int64_t groups = keys.integer_or(".expert_group_count", unsaid_v3 ? kV3Groups : 1);
  config["n_group"] = groups;
  config["topk_group"] = keys.integer_or(".expert_group_used_count", unsaid_v3 ? kV3GroupsUsed : 1);
  config["topk_method"] = sigmoid ? "noaux_tc" : groups > 1 ? "group_limited_greedy" : "greedy";
}

void add_deepseek(GgufKeys& keys, const quant::Gguf& gguf, Json& config) {
  // Layers of multi-token prediction are counted as blocks.
  const int64_t predicting = keys.integer_or(".nextn_predict_layers", 0);
  config["num_hidden_layers"] = keys.integer(".block_count") - predicting;
  config["num_nextn_predict_layers"] = predicting;
  add_mla(keys, gguf, config);
  add_experts(keys, config);
  add_yarn(keys, config);
}

/// What Llama 3.1 to 3.3 have in common of their rope scaling; no key repeats it.
constexpr double kLlama3Low = 1.0, kLlama3High = 4.0;
constexpr double kLlama3Context = 8192.0;

/// How much of a pair's own frequency Llama 3's scaling keeps, where its angle makes `turns` within the original
/// context.
double llama3_kept(double turns) {
  return std::clamp((turns - kLlama3Low) / (kLlama3High - kLlama3Low), 0.0, 1.0);
}

/// Turns of a pair within `context` tokens.
double turns_of(double context, double theta, size_t pair, size_t pairs) {
  return context * std::pow(theta, -static_cast<double>(pair) / static_cast<double>(pairs)) / (2.0 * std::numbers::pi);
}

/// The original context, from a pair whose frequency is kept in part. Where there is none any will do that the other
/// pairs do not refute: Llama 3's.
double llama3_context(std::span<const float> divisors, double factor, double theta) {
  for (size_t pair = 0; pair < divisors.size(); ++pair) {
    const auto divisor = static_cast<double>(divisors[pair]);
    if (divisor < 1.001 || divisor > 0.999 * factor) continue;
    const double kept = (1.0 / divisor - 1.0 / factor) / (1.0 - 1.0 / factor);
    const double turns = kLlama3Low + kept * (kLlama3High - kLlama3Low);
    return std::round(turns / turns_of(1.0, theta, pair, divisors.size()));
  }
  return kLlama3Context;
}

/// rope_scaling from the divisors of rope_freqs.weight [head_dim / 2]. The slowest pair's is the factor; all must
/// follow from it and the context.
void add_llama3(GgufKeys& keys, const quant::Gguf& gguf, const quant::TensorInfo& tensor, Json& config) {
  constexpr const char* kName = "rope_freqs.weight";
  constexpr uint64_t kMostBytes = 65536;
  if (tensor.dtype != quant::DType::kF32 || tensor.size_bytes > kMostBytes) {
    keys.fault(kName, "expected a few F32 numbers");
    return;
  }
  std::vector<float> divisors(tensor.size_bytes / sizeof(float));
  const std::filesystem::path& file = gguf.files()[static_cast<size_t>(tensor.file)];
  const quant::UniqueFd fd = quant::open_for_read(file);
  quant::pread_exact(fd.get(), std::as_writable_bytes(std::span(divisors)), tensor.offset, file);
  const auto factor = static_cast<double>(divisors.back());
  constexpr double kMostFactor = 1e6;
  const auto theta = config["rope_theta"].get<double>();
  const double context = llama3_context(divisors, factor, theta);
  constexpr double kMostContext = 4294967296.0;
  if (!(factor >= 1.0 && factor <= kMostFactor && context >= 1.0 && context <= kMostContext)) {
    keys.fault(kName, fmt::format("is not Llama 3's scaling: factor {}, context {}", factor, context));
    return;
  }
  for (size_t pair = 0; pair < divisors.size(); ++pair) {
    const double kept = llama3_kept(turns_of(context, theta, pair, divisors.size()));
    const double expected = 1.0 / ((1.0 - kept) / factor + kept);
    if (std::abs(static_cast<double>(divisors[pair]) - expected) <= 1e-3 * expected) continue;
    keys.fault(kName, fmt::format("is not Llama 3's scaling: number {} is {}, expected {:.5g}", pair, divisors[pair],
                                  expected));
    return;
  }
  config["rope_scaling"] = {{"rope_type", "llama3"},
                            {"factor", factor},
                            {"low_freq_factor", kLlama3Low},
                            {"high_freq_factor", kLlama3High},
                            {"original_max_position_embeddings", static_cast<int64_t>(context)}};
}

void add_dense(GgufKeys& keys, const quant::Gguf& gguf, const std::string& architecture, Json& config) {
  config["model_type"] = architecture;
  config["num_hidden_layers"] = keys.integer(".block_count");
  config["num_key_value_heads"] = keys.integer_or(".attention.head_count_kv", keys.integer(".attention.head_count"));
  if (keys.has(".attention.key_length")) config["head_dim"] = keys.integer(".attention.key_length");
  if (architecture != "llama") return;
  config["rope_interleave"] = true;
  if (const quant::TensorInfo* divisors = find_tensor(gguf, "rope_freqs.weight")) {
    add_llama3(keys, gguf, *divisors, config);
  }
}

}  // namespace

std::string gguf_config_json(const quant::Gguf& gguf) {
  const std::filesystem::path& file = gguf.files().front();
  std::string architecture;
  const auto named = gguf.metadata().find("general.architecture");
  if (named != gguf.metadata().end() && named->second.text() != nullptr) architecture = *named->second.text();
  GgufKeys keys(gguf.metadata(), architecture);
  Json config = Json::object();
  add_common(keys, gguf, config);
  if (architecture == "deepseek2") {
    add_deepseek(keys, gguf, config);
  } else if (architecture == "qwen2" || architecture == "llama") {
    add_dense(keys, gguf, architecture, config);
  } else {
    throw quant::Error(quant::ErrorKind::kBadFile,
                       {.what = "an architecture that this version does not run",
                        .file = file,
                        .item = "general.architecture",
                        .expected = "deepseek2, qwen2 or llama",
                        .got = architecture.empty() ? "none" : quant::printable(architecture),
                        .action = "use a GGUF of DeepSeek-V2, V3, R1 or an R1 distill"});
  }
  keys.check(file);
  return config.dump(2) + "\n";
}

}  // namespace moraine::runtime
