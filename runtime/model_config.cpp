#include "runtime/model_config.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <cmath>

#include "quant/error.h"
#include "quant/json.h"
#include "runtime/config_reader.h"

namespace moraine::runtime {
namespace {

using quant::Json;

// Far above any published model and far below what could overflow a product of two dimensions.
constexpr int64_t kMaxDim = 1 << 20;
constexpr int64_t kMaxVocab = 1 << 24;
constexpr int64_t kMaxLayers = 4096;
constexpr int64_t kMaxExperts = 65536;
constexpr int64_t kMaxPositions = int64_t{1} << 32;

void read_architecture(ConfigReader& reader, const Json& json, ModelConfig& config) {
  config.model_type = reader.text_or("model_type", "");
  std::string architecture;
  if (const auto list = json.find("architectures");
      list != json.end() && list->is_array() && !list->empty() && list->front().is_string()) {
    architecture = list->front().get<std::string>();
  }
  if (config.model_type == "deepseek_v3" || (config.model_type.empty() && architecture == "DeepseekV3ForCausalLM"))
    return;
  reader.fault("model_type",
               fmt::format("'{}' is not supported; this version runs deepseek_v3 (DeepseekV3ForCausalLM)",
                           quant::printable(config.model_type.empty() ? architecture : config.model_type)));
}

void read_shapes(ConfigReader& reader, ModelConfig& config) {
  config.vocab_size = reader.integer("vocab_size", 1, kMaxVocab);
  config.hidden_size = reader.integer("hidden_size", 1, kMaxDim);
  config.intermediate_size = reader.integer("intermediate_size", 1, kMaxDim);
  config.num_hidden_layers = reader.integer("num_hidden_layers", 1, kMaxLayers);
  config.num_nextn_predict_layers = reader.integer_or("num_nextn_predict_layers", 0, 16, 0);
  config.num_attention_heads = reader.integer("num_attention_heads", 1, 65536);
  const int64_t kv_heads = reader.integer_or("num_key_value_heads", 1, 65536, config.num_attention_heads);
  if (kv_heads != config.num_attention_heads) {
    reader.fault("num_key_value_heads",
                 fmt::format("expected num_attention_heads ({}): MLA has one key per head, got {}",
                             config.num_attention_heads, kv_heads));
  }
  config.q_lora_rank = reader.integer("q_lora_rank", 1, kMaxDim);
  config.kv_lora_rank = reader.integer("kv_lora_rank", 1, kMaxDim);
  config.qk_nope_head_dim = reader.integer("qk_nope_head_dim", 1, 65536);
  config.qk_rope_head_dim = reader.integer("qk_rope_head_dim", 2, 65536);
  if (config.qk_rope_head_dim % 2 != 0) reader.fault("qk_rope_head_dim", "expected an even number: rope turns pairs");
  config.v_head_dim = reader.integer("v_head_dim", 1, 65536);
  config.max_position_embeddings = reader.integer("max_position_embeddings", 1, kMaxPositions);
  config.rms_norm_eps = reader.number("rms_norm_eps", 0.0, 1.0);
}

void read_experts(ConfigReader& reader, ModelConfig& config) {
  config.moe_intermediate_size = reader.integer("moe_intermediate_size", 1, kMaxDim);
  config.n_shared_experts = reader.integer("n_shared_experts", 1, 64);
  config.n_routed_experts = reader.integer("n_routed_experts", 1, kMaxExperts);
  config.num_experts_per_tok = reader.integer("num_experts_per_tok", 1, 1024);
  config.n_group = reader.integer("n_group", 1, 1024);
  config.topk_group = reader.integer("topk_group", 1, 1024);
  config.first_k_dense_replace = reader.integer("first_k_dense_replace", 0, kMaxLayers);
  config.norm_topk_prob = reader.boolean_or("norm_topk_prob", true);
  config.routed_scaling_factor = reader.number_or("routed_scaling_factor", 1e-6, 1e6, 1.0);
  config.moe_layer_freq = reader.integer_or("moe_layer_freq", 1, kMaxLayers, 1);
  if (config.moe_layer_freq != 1) reader.fault("moe_layer_freq", "only 1 is supported");
  if (config.n_routed_experts % config.n_group != 0) {
    reader.fault("n_group", fmt::format("{} experts cannot be split into {} equal groups", config.n_routed_experts,
                                        config.n_group));
  } else if (config.topk_group > config.n_group) {
    reader.fault("topk_group", fmt::format("keeps {} of {} groups", config.topk_group, config.n_group));
  } else if (config.num_experts_per_tok > config.topk_group * (config.n_routed_experts / config.n_group)) {
    reader.fault("num_experts_per_tok",
                 fmt::format("{} experts are wanted, the {} groups kept have {}", config.num_experts_per_tok,
                             config.topk_group, config.topk_group * (config.n_routed_experts / config.n_group)));
  }
}

/// Settings that exist in the family but are not built: accepted only with the value that V3 has.
void require(ConfigReader& reader, const char* name, const std::string& supported) {
  const std::string value = reader.text_or(name, supported);
  if (value != supported) {
    reader.fault(name,
                 fmt::format("'{}' is not supported; this version knows '{}'", quant::printable(value), supported));
  }
}

void read_rope(ConfigReader& reader, ModelConfig& config) {
  // Newer writers put rope_theta and the scaling into rope_parameters, older ones have rope_scaling.
  const Json* parameters = reader.object_or_null("rope_parameters");
  const Json* scaling = parameters != nullptr ? parameters : reader.object_or_null("rope_scaling");
  config.rope_theta = reader.number_or("rope_theta", 1.0, 1e12, 10000.0);
  if (scaling == nullptr) return;
  ConfigReader nested(*scaling, parameters != nullptr ? "rope_parameters." : "rope_scaling.");
  if (parameters != nullptr) config.rope_theta = nested.number_or("rope_theta", 1.0, 1e12, config.rope_theta);
  const std::string type = nested.text_or("rope_type", nested.text_or("type", "default"));
  if (type == "yarn") {
    RopeScaling& yarn = config.rope_scaling;
    yarn.yarn = true;
    yarn.factor = nested.number("factor", 1.0, 1e6);
    yarn.original_max_position_embeddings = nested.integer("original_max_position_embeddings", 1, kMaxPositions);
    yarn.beta_fast = nested.number_or("beta_fast", 1e-6, 1e6, 32.0);
    yarn.beta_slow = nested.number_or("beta_slow", 1e-6, 1e6, 1.0);
    yarn.mscale = nested.number_or("mscale", 0.0, 1e3, 1.0);
    yarn.mscale_all_dim = nested.number_or("mscale_all_dim", 0.0, 1e3, 0.0);
  } else if (type != "default") {
    nested.fault("type", fmt::format("'{}' is not supported; this version knows 'yarn'", quant::printable(type)));
  }
  reader.take_faults_of(nested);
}

void read_quantization(ConfigReader& reader, ModelConfig& config) {
  const Json* quantization = reader.object_or_null("quantization_config");
  if (quantization == nullptr) return;
  ConfigReader nested(*quantization, "quantization_config.");
  require(nested, "quant_method", "fp8");
  require(nested, "fmt", "e4m3");
  if (const auto block = quantization->find("weight_block_size");
      block != quantization->end() && *block != Json::array({128, 128})) {
    nested.fault("weight_block_size", fmt::format("expected [128,128], got {}", quant::printable(block->dump())));
  }
  config.fp8_weights = true;
  reader.take_faults_of(nested);
}

void read_tokens(ConfigReader& reader, ModelConfig& config) {
  const auto last_id = static_cast<int32_t>(config.vocab_size - 1);
  config.bos_token_id = static_cast<int32_t>(reader.integer_or("bos_token_id", 0, last_id, 0));
  config.eos_token_ids = reader.integer_list("eos_token_id", 0, last_id);
}

}  // namespace

double yarn_mscale(double scale, double mscale) {
  return scale <= 1.0 ? 1.0 : 0.1 * mscale * std::log(scale) + 1.0;
}

double ModelConfig::softmax_scale() const {
  double scale = 1.0 / std::sqrt(static_cast<double>(qk_head_dim()));
  if (rope_scaling.yarn && rope_scaling.mscale_all_dim != 0.0) {
    const double m = yarn_mscale(rope_scaling.factor, rope_scaling.mscale_all_dim);
    scale *= m * m;
  }
  return scale;
}

ModelConfig ModelConfig::parse(std::string_view json_text, const std::filesystem::path& file) {
  const Json json = quant::parse_json(json_text, file);
  if (!json.is_object()) {
    throw quant::Error(quant::ErrorKind::kBadFile, {.what = "not a JSON object", .file = file});
  }
  ModelConfig config;
  ConfigReader reader(json);
  read_architecture(reader, json, config);
  // An unknown architecture has other fields: naming all that are missing would only hide the reason.
  if (reader.faults().empty()) {
    read_shapes(reader, config);
    read_experts(reader, config);
    require(reader, "scoring_func", "sigmoid");
    require(reader, "topk_method", "noaux_tc");
    require(reader, "hidden_act", "silu");
    if (reader.boolean_or("attention_bias", false)) reader.fault("attention_bias", "only false is supported");
    if (reader.boolean_or("tie_word_embeddings", false)) reader.fault("tie_word_embeddings", "only false is supported");
    if (!reader.boolean_or("rope_interleave", true)) reader.fault("rope_interleave", "only true is supported");
    read_rope(reader, config);
    read_quantization(reader, config);
    read_tokens(reader, config);
  }
  if (!reader.faults().empty()) {
    throw quant::Error(quant::ErrorKind::kBadFile,
                       {.what = fmt::format("cannot run this model: {}", fmt::join(reader.faults(), "; ")),
                        .file = file,
                        .action = "use a DeepSeek-V3 or R1 checkpoint as published"});
  }
  return config;
}

ModelConfig ModelConfig::from_directory(const std::filesystem::path& directory) {
  const std::filesystem::path file = directory / "config.json";
  if (!std::filesystem::exists(file)) {
    throw quant::Error(quant::ErrorKind::kBadFile, {.what = "not a model directory: config.json is missing",
                                                    .file = directory,
                                                    .action = "give a Hugging Face model directory or a Moraine pack"});
  }
  return parse(quant::read_text(file, 4 << 20), file);
}

}  // namespace moraine::runtime
