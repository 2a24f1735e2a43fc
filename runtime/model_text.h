#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <vector>

#include "runtime/chat_template.h"
#include "runtime/model_config.h"
#include "runtime/model_source.h"
#include "runtime/sampler.h"
#include "runtime/tokenizer.h"

namespace moraine::runtime {

/// What a model says about text: how to read and write it, where an answer ends, how to sample.
struct ModelText {
  Tokenizer tokenizer;
  std::optional<ChatTemplate> chat_template;
  SamplingOptions default_sampling;        ///< generation_config.json, R1's recommendation where it is silent
  std::vector<int32_t> stop_tokens;        ///< ascending, never empty
  std::optional<int32_t> think_token;      ///< <think>
  std::optional<int32_t> end_think_token;  ///< </think>

  /// Throws quant::Error(kBadFile) if a text is missing or broken, or if tokenizer and config do not fit each other.
  static ModelText from_source(const ModelSource& source, const ModelConfig& config);
  /// The same for the source that lies there.
  static ModelText from_directory(const std::filesystem::path& directory, const ModelConfig& config);
};

}  // namespace moraine::runtime
