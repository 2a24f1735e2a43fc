#include "runtime/rope_config.h"

#include <fmt/format.h>

#include "quant/error.h"

namespace moraine::runtime {
namespace {

void read_yarn(ConfigReader& reader, RopeScaling& yarn) {
  yarn.type = RopeScaling::Type::kYarn;
  yarn.factor = reader.number("factor", 1.0, 1e6);
  yarn.original_max_position_embeddings = reader.integer("original_max_position_embeddings", 1, kMaxPositions);
  yarn.beta_fast = reader.number_or("beta_fast", 1e-6, 1e6, 32.0);
  yarn.beta_slow = reader.number_or("beta_slow", 1e-6, 1e6, 1.0);
  yarn.mscale = reader.number_or("mscale", 0.0, 1e3, 1.0);
  yarn.mscale_all_dim = reader.number_or("mscale_all_dim", 0.0, 1e3, 0.0);
}

void read_llama3(ConfigReader& reader, RopeScaling& llama3) {
  llama3.type = RopeScaling::Type::kLlama3;
  llama3.factor = reader.number("factor", 1.0, 1e6);
  llama3.original_max_position_embeddings = reader.integer("original_max_position_embeddings", 1, kMaxPositions);
  llama3.low_freq_factor = reader.number("low_freq_factor", 1e-6, 1e6);
  llama3.high_freq_factor = reader.number("high_freq_factor", 1e-6, 1e6);
  if (llama3.high_freq_factor <= llama3.low_freq_factor) {
    reader.fault("high_freq_factor", fmt::format("expected more than low_freq_factor ({}), got {}",
                                                 llama3.low_freq_factor, llama3.high_freq_factor));
  }
}

}  // namespace

void read_rope(ConfigReader& reader, ModelConfig& config) {
  const quant::Json* parameters = reader.object_or_null("rope_parameters");
  const quant::Json* scaling = parameters != nullptr ? parameters : reader.object_or_null("rope_scaling");
  config.rope_theta = reader.number_or("rope_theta", 1.0, 1e12, 10000.0);
  if (scaling == nullptr) return;
  ConfigReader nested(*scaling, parameters != nullptr ? "rope_parameters." : "rope_scaling.");
  if (parameters != nullptr) config.rope_theta = nested.number_or("rope_theta", 1.0, 1e12, config.rope_theta);
  const std::string type = nested.text_or("rope_type", nested.text_or("type", "default"));
  if (type == "yarn") {
    read_yarn(nested, config.rope_scaling);
  } else if (type == "llama3") {
    read_llama3(nested, config.rope_scaling);
  } else if (type != "default") {
    nested.fault("type",
                 fmt::format("'{}' is not supported; this version knows 'yarn' and 'llama3'", quant::printable(type)));
  }
  reader.take_faults_of(nested);
}

}  // namespace moraine::runtime
