#pragma once

#include <filesystem>
#include <optional>
#include <string>

#include "quant/gguf.h"
#include "runtime/model_source.h"

namespace moraine::runtime {

/// A model in a GGUF file, run in place: texts are made from its metadata, weights are read by offset.
class GgufSource final : public ModelSource {
 public:
  /// Reads the headers of all parts. Throws quant::Error(kBadFile) as quant::Gguf::open does.
  explicit GgufSource(const std::filesystem::path& file) : file_(file), gguf_(quant::Gguf::open(file)) {}

  const std::filesystem::path& path() const override { return file_; }
  std::string_view kind() const override { return "GGUF file"; }
  std::optional<std::string> text(std::string_view name) const override;
  std::filesystem::path text_file(std::string_view) const override { return gguf_.files().front(); }
  ModelConfig config() const override;
  quant::Checkpoint checkpoint() const override;

 private:
  std::filesystem::path file_;
  quant::Gguf gguf_;
};

}  // namespace moraine::runtime
