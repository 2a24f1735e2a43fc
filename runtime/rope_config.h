#pragma once

#include "runtime/config_reader.h"
#include "runtime/model_config.h"

namespace moraine::runtime {

/// Reads rope_theta and the scaling of rope: from rope_parameters, as newer writers have it, or from rope_scaling.
void read_rope(ConfigReader& reader, ModelConfig& config);

}  // namespace moraine::runtime
