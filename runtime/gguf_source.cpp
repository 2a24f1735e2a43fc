#include "runtime/gguf_source.h"

#include "runtime/gguf_config.h"
#include "runtime/gguf_tensors.h"
#include "runtime/gguf_text.h"

namespace moraine::runtime {

std::optional<std::string> GgufSource::text(std::string_view name) const {
  if (name == "config.json") return gguf_config_json(gguf_);
  if (name == "tokenizer.json") return gguf_tokenizer_json(gguf_);
  if (name == "tokenizer_config.json") return gguf_tokenizer_config_json(gguf_);
  if (name == "generation_config.json") return gguf_generation_config_json(gguf_);
  return std::nullopt;
}

ModelConfig GgufSource::config() const {
  return ModelConfig::parse(gguf_config_json(gguf_), file_);
}

quant::Checkpoint GgufSource::checkpoint() const {
  return gguf_checkpoint(gguf_);
}

}  // namespace moraine::runtime
