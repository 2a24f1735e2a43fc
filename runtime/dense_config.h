#pragma once

#include "runtime/config_reader.h"
#include "runtime/model_config.h"

namespace moraine::runtime {

/// Reads what the dense architectures have beyond every other model: grouped-query attention, and biases in Qwen2
/// (shared/spec/dense-distills.md). `config.model_type` is qwen2 or llama.
void read_dense(ConfigReader& reader, ModelConfig& config);

}  // namespace moraine::runtime
