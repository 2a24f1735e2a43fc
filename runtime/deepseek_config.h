#pragma once

#include "runtime/config_reader.h"
#include "runtime/model_config.h"

namespace moraine::runtime {

/// Reads what DeepSeek-V2 and V3 have beyond every other model: latent attention, routed experts, their router
/// (shared/spec/deepseek-v3.md §1, transformers `deepseek_v2`). `config.model_type` is one of the two.
void read_deepseek(ConfigReader& reader, ModelConfig& config);

}  // namespace moraine::runtime
