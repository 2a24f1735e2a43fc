#include "runtime/model_source.h"

#include <fmt/format.h>

#include "quant/error.h"
#include "quant/expert_pack.h"
#include "quant/json.h"
#include "runtime/gguf_source.h"

namespace moraine::runtime {
namespace {

namespace fs = std::filesystem;

constexpr uint64_t kMaxTextBytes = 256u << 20;

/// A Hugging Face directory, or a pack, which looks like one.
class DirectorySource final : public ModelSource {
 public:
  explicit DirectorySource(fs::path directory) : directory_(std::move(directory)) {}

  const fs::path& path() const override { return directory_; }
  std::string_view kind() const override {
    return quant::PackIndex::present(directory_) ? "Moraine pack" : "model directory";
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
  if (fs::exists(model, ignored) && !fs::is_directory(model, ignored)) return std::make_unique<GgufSource>(model);
  refuse_gguf_directory(model);
  return std::make_unique<DirectorySource>(model);
}

}  // namespace moraine::runtime
