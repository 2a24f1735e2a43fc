#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace moraine::tools {

/// The shapes of a model, to be filled with random weights.
struct SynthPreset {
  std::string_view name;
  std::string_view config_json;  ///< config.json without the counts below
  int64_t dense_layers = 0;      ///< of the whole model
  int64_t moe_layers = 0;
  int64_t vocab_size = 0;  ///< unless another is asked for
};

/// "r1-671b" (DeepSeek-R1 as published) and "tiny" (the embedded tiny-r1).
std::span<const SynthPreset> synth_presets();
/// Throws quant::Error(kUsage) for an unknown name.
const SynthPreset& find_synth_preset(std::string_view name);

}  // namespace moraine::tools
