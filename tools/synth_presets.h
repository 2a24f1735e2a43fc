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
  int64_t moe_layers = 0;        ///< 0: a dense model, which can have none
  int64_t vocab_size = 0;        ///< unless another is asked for
};

/// "r1-671b" (DeepSeek-R1 as published), "tiny" (the embedded tiny-r1), "v2-lite" (DeepSeek-V2-Lite), "qwen2-7b" and
/// "llama-8b" (R1's distills).
std::span<const SynthPreset> synth_presets();
/// All names, for people.
std::string synth_preset_names();
/// Throws quant::Error(kUsage) for an unknown name.
const SynthPreset& find_synth_preset(std::string_view name);

}  // namespace moraine::tools
