#pragma once

#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "quant/safetensors.h"
#include "runtime/model_config.h"

namespace moraine::runtime {

/// A model as people have it: a directory as Hugging Face publishes it, a Moraine pack, a GGUF file, or a config.json
/// alone. Whichever it is, it looks like a Hugging Face directory: texts by file name, weights by their names there.
/// Nothing is loaded.
class ModelSource {
 public:
  virtual ~ModelSource() = default;

  /// A directory, a GGUF file (any part of a split one), or a file *.json that is a configuration. Throws
  /// quant::Error(kBadFile): also for a directory with nothing but GGUF files, of which one must be named.
  static std::unique_ptr<ModelSource> open(const std::filesystem::path& model);

  virtual const std::filesystem::path& path() const = 0;
  /// "model directory", "Moraine pack", "GGUF file", "configuration"
  virtual std::string_view kind() const = 0;
  bool is_pack() const { return kind() == "Moraine pack"; }
  /// False for a configuration alone, a directory with nothing else included: it can be planned for and not run.
  bool has_weights() const { return kind() != "configuration"; }

  /// The text of "config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json" or
  /// "chat_template.jinja", nothing if the model has none. Throws quant::Error(kIo / kBadFile).
  virtual std::optional<std::string> text(std::string_view name) const = 0;
  /// Where that text stands, for messages.
  virtual std::filesystem::path text_file(std::string_view name) const = 0;
  /// Throws quant::Error(kBadFile) if it is missing or describes what this program does not run.
  virtual ModelConfig config() const = 0;
  /// Opens the weights. Throws quant::Error as quant::Checkpoint::open does.
  virtual quant::Checkpoint checkpoint() const = 0;
};

}  // namespace moraine::runtime
