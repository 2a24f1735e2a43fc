#include "runtime/model_source.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "quant/checkpoint_index.h"
#include "quant/error.h"
#include "quant/expert_pack.h"
#include "quant/json.h"
#include "runtime/gguf_source.h"

namespace moraine::runtime {
namespace {

namespace fs = std::filesystem;

constexpr uint64_t kMaxTextBytes = 256u << 20;

/// A directory where nothing but config.json, and perhaps the tokenizer, was downloaded.
bool is_configuration(const fs::path& directory) {
  constexpr std::array kWeights = {".safetensors", ".bin", ".pt", ".pth"};
  std::error_code failure;
  if (!fs::exists(directory / "config.json", failure)) return false;
  if (fs::exists(directory / quant::CheckpointIndex::kFileName, failure)) return false;
  for (fs::directory_iterator entry(directory, failure), end; !failure && entry != end; entry.increment(failure)) {
    if (std::ranges::count(kWeights, entry->path().extension().string()) > 0) return false;
  }
  return true;
}

/// A Hugging Face directory, or a pack, which looks like one.
class DirectorySource final : public ModelSource {
 public:
  explicit DirectorySource(fs::path directory) : directory_(std::move(directory)) {}

  const fs::path& path() const override { return directory_; }
  std::string_view kind() const override {
    if (quant::PackIndex::present(directory_)) return "Moraine pack";
    return is_configuration(directory_) ? "configuration" : "model directory";
  }
  std::optional<std::string> text(std::string_view name) const override {
    std::error_code ignored;
    if (!fs::exists(directory_ / name, ignored)) return std::nullopt;
    return quant::read_text(directory_ / name, kMaxTextBytes);
  }
  fs::path text_file(std::string_view name) const override { return directory_ / name; }
  ModelConfig config() const override { return ModelConfig::from_directory(directory_); }
  quant::Checkpoint checkpoint() const override { return quant::Checkpoint::open(directory_); }

 private:
  fs::path directory_;
};

/// A config.json, or a file that has its text.
class ConfigSource final : public ModelSource {
 public:
  explicit ConfigSource(fs::path file) : file_(std::move(file)) {}

  const fs::path& path() const override { return file_; }
  std::string_view kind() const override { return "configuration"; }
  std::optional<std::string> text(std::string_view name) const override {
    if (name != "config.json") return std::nullopt;
    return quant::read_text(file_, kMaxTextBytes);
  }
  fs::path text_file(std::string_view) const override { return file_; }
  ModelConfig config() const override { return ModelConfig::parse(quant::read_text(file_, kMaxTextBytes), file_); }
  quant::Checkpoint checkpoint() const override {
    throw quant::Error(quant::ErrorKind::kBadFile, {.what = "a configuration, which holds no weights",
                                                    .file = file_,
                                                    .action = "give the directory of the model, or its GGUF file"});
  }

 private:
  fs::path file_;
};

/// Refuses a directory that holds GGUF files and no config.json, naming one of them.
void refuse_gguf_directory(const fs::path& directory) {
  std::error_code failure;
  if (fs::exists(directory / "config.json", failure)) return;
  fs::path first;
  for (fs::directory_iterator entry(directory, failure), end; !failure && entry != end; entry.increment(failure)) {
    if (entry->path().extension() == ".gguf" && (first.empty() || entry->path() < first)) first = entry->path();
  }
  if (first.empty()) return;
  throw quant::Error(quant::ErrorKind::kBadFile,
                     {.what = "a directory of GGUF files",
                      .file = directory,
                      .action = fmt::format("name the file itself, such as {}", quant::printable(first.string()))});
}

}  // namespace

std::unique_ptr<ModelSource> ModelSource::open(const fs::path& model) {
  std::error_code ignored;
  if (fs::exists(model, ignored) && !fs::is_directory(model, ignored)) {
    if (model.extension() == ".json") return std::make_unique<ConfigSource>(model);
    return std::make_unique<GgufSource>(model);
  }
  refuse_gguf_directory(model);
  return std::make_unique<DirectorySource>(model);
}

}  // namespace moraine::runtime
