#include "runtime/model_config.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <cmath>

#include "quant/error.h"
#include "quant/json.h"
#include "runtime/config_reader.h"
#include "runtime/deepseek_config.h"
#include "runtime/dense_config.h"
#include "runtime/rope_config.h"

namespace moraine::runtime {
namespace {

using quant::Json;

/// The architectures that this version runs, by model_type and by the class that stands in `architectures`.
struct Architecture {
  std::string_view model_type;
  std::string_view class_name;
};
constexpr Architecture kArchitectures[] = {{"deepseek_v3", "DeepseekV3ForCausalLM"},
                                           {"deepseek_v2", "DeepseekV2ForCausalLM"},
                                           {"qwen2", "Qwen2ForCausalLM"},
                                           {"llama", "LlamaForCausalLM"}};

void read_architecture(ConfigReader& reader, const Json& json, ModelConfig& config) {
  config.model_type = reader.text_or("model_type", "");
  std::string class_name;
  if (const auto list = json.find("architectures");
      list != json.end() && list->is_array() && !list->empty() && list->front().is_string()) {
    class_name = list->front().get<std::string>();
  }
  std::vector<std::string_view> known;
  for (const Architecture& architecture : kArchitectures) {
    known.push_back(architecture.model_type);
    if (config.model_type.empty() ? class_name != architecture.class_name
                                  : config.model_type != architecture.model_type)
      continue;
    config.model_type = architecture.model_type;
    return;
  }
  reader.fault("model_type", fmt::format("'{}' is not supported; this version runs {}",
                                         quant::printable(config.model_type.empty() ? class_name : config.model_type),
                                         fmt::join(known, ", ")));
}

/// What every architecture has.
void read_shapes(ConfigReader& reader, ModelConfig& config) {
  config.vocab_size = reader.integer("vocab_size", 1, kMaxVocab);
  config.hidden_size = reader.integer("hidden_size", 1, kMaxDim);
  config.intermediate_size = reader.integer("intermediate_size", 1, kMaxDim);
  config.num_hidden_layers = reader.integer("num_hidden_layers", 1, kMaxLayers);
  config.num_attention_heads = reader.integer("num_attention_heads", 1, kMaxHeads);
  config.max_position_embeddings = reader.integer("max_position_embeddings", 1, kMaxPositions);
  config.rms_norm_eps = reader.number("rms_norm_eps", 0.0, 1.0);
  config.tie_word_embeddings = reader.boolean_or("tie_word_embeddings", false);
  reader.expect_text("hidden_act", "silu");
}

void read_quantization(ConfigReader& reader, ModelConfig& config) {
  const Json* quantization = reader.object_or_null("quantization_config");
  if (quantization == nullptr) return;
  ConfigReader nested(*quantization, "quantization_config.");
  nested.expect_text("quant_method", "fp8");
  nested.expect_text("fmt", "e4m3");
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
  if (is_latent() && rope_scaling.type == RopeScaling::Type::kYarn && rope_scaling.mscale_all_dim != 0.0) {
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
    if (config.model_type.starts_with("deepseek")) {
      read_deepseek(reader, config);
    } else {
      read_dense(reader, config);
    }
    read_rope(reader, config);
    read_quantization(reader, config);
    read_tokens(reader, config);
  }
  if (!reader.faults().empty()) {
    throw quant::Error(quant::ErrorKind::kBadFile,
                       {.what = fmt::format("cannot run this model: {}", fmt::join(reader.faults(), "; ")),
                        .file = file,
                        .action = "use a checkpoint of DeepSeek-V3, R1, V2 or an R1 distill as published"});
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
