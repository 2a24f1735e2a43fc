#pragma once

#include <filesystem>
#include <string>

#include "quant/gguf.h"

namespace moraine::runtime {

/// The config.json that a model in a GGUF file would have in a Hugging Face directory: what ModelConfig::parse reads.
/// Architectures: deepseek2, qwen2, llama. A Llama's says `rope_interleave`, because its converter permutes the rows of
/// q and k for interleaved rope. Throws quant::Error(kBadFile) that lists every missing or impossible key, and for an
/// unknown architecture. Source of the keys: ggml-org/llama.cpp gguf-py constants, conversion of DeepSeek models.
std::string gguf_config_json(const quant::Gguf& gguf);

}  // namespace moraine::runtime
