#include <fmt/format.h>

#include <algorithm>
#include <optional>
#include <utility>

#include "quant/checkpoint_index.h"
#include "quant/error.h"
#include "quant/expert_pack.h"
#include "quant/safetensors.h"

namespace moraine::quant {
namespace {

namespace fs = std::filesystem;

constexpr const char* kSingleFileName = "model.safetensors";
constexpr size_t kMaxNamesListed = 1000;
constexpr const char* kDownloadAgain = "download the model again";

bool is_there(const fs::path& file) {
  std::error_code ignored;
  return fs::exists(file, ignored);
}

/// The error for a directory with neither an index nor model.safetensors, saying what is there instead.
Error no_weights(const fs::path& directory) {
  std::error_code failure;
  if (!fs::is_directory(directory, failure)) {
    return Error(ErrorKind::kBadFile,
                 {.what = is_there(directory) ? "this is not a directory" : "there is no such directory",
                  .file = directory,
                  .action = "give the directory of a model"});
  }
  size_t n_shards = 0;
  size_t n_pickles = 0;
  for (fs::directory_iterator entry(directory, failure), end; !failure && entry != end; entry.increment(failure)) {
    const fs::path extension = entry->path().extension();
    if (extension == ".safetensors") ++n_shards;
    if (extension == ".bin" || extension == ".pt" || extension == ".pth") ++n_pickles;
  }
  std::string action = "give the directory of a downloaded model";
  if (n_pickles > 0) action = "get the model as safetensors: .bin and .pt files can run code and are never opened";
  if (n_shards > 0) action = fmt::format("download {}: it says what is in the shards", CheckpointIndex::kFileName);
  return Error(ErrorKind::kBadFile, {.what = "the directory holds no model weights",
                                     .file = directory,
                                     .expected = fmt::format("{} or {}", CheckpointIndex::kFileName, kSingleFileName),
                                     .got = fmt::format("{} other .safetensors files", n_shards),
                                     .action = action});
}

/// Names separated by commas; a hostile index gets no endless line, the largest published models are all named.
std::string listed(const std::vector<std::string>& names, const char* separator) {
  const size_t n_listed = std::min(names.size(), kMaxNamesListed);
  std::string text =
      fmt::format("{}", fmt::join(names.begin(), names.begin() + static_cast<std::ptrdiff_t>(n_listed), separator));
  if (names.size() > n_listed) text += fmt::format(" and {} more", names.size() - n_listed);
  return text;
}

/// What a message says without the directory, which stands in front of all of them once.
std::string without_directory(std::string_view message, const fs::path& directory) {
  const std::string prefix = printable((directory / "").string(), 4096);
  if (message.starts_with(prefix)) message.remove_prefix(prefix.size());
  return std::string(message);
}

/// The one error for all shards that are missing and all that are unusable (whose own messages are given).
Error unusable_shards(const fs::path& directory, const std::vector<std::string>& missing,
                      const std::vector<std::string>& damaged, size_t n_files) {
  std::vector<std::string> parts;
  if (!missing.empty()) {
    parts.push_back(
        fmt::format("{} of {} model files are missing: {}", missing.size(), n_files, listed(missing, ", ")));
  }
  if (!damaged.empty()) {
    parts.push_back(fmt::format("{} of {} model files are incomplete or damaged: {}", damaged.size(), n_files,
                                listed(damaged, "; ")));
  }
  return Error(ErrorKind::kBadFile,
               {.what = fmt::format("{}", fmt::join(parts, "; ")), .file = directory, .action = "finish the download"});
}

}  // namespace

Checkpoint Checkpoint::open(const fs::path& directory) {
  Checkpoint checkpoint;
  checkpoint.directory_ = directory;
  std::optional<CheckpointIndex> index;
  std::vector<std::string> names = {kSingleFileName};
  if (is_there(directory / CheckpointIndex::kFileName)) {
    index = read_checkpoint_index(directory / CheckpointIndex::kFileName);
    names = index->files;
  } else if (!is_there(directory / kSingleFileName)) {
    throw no_weights(directory);
  }
  const BlockFormats block_formats = PackIndex::present(directory) ? BlockFormats::kAllowed : BlockFormats::kRefused;
  checkpoint.add_files(names, block_formats);
  if (index) checkpoint.compare_with(*index);
  return checkpoint;
}

Checkpoint Checkpoint::from_tensors(fs::path location, std::vector<fs::path> files, std::vector<TensorInfo> tensors) {
  Checkpoint checkpoint;
  checkpoint.directory_ = std::move(location);
  checkpoint.files_ = std::move(files);
  for (const fs::path& file : checkpoint.files_) {
    checkpoint.descriptors_.push_back(std::make_shared<UniqueFd>(open_for_read(file)));
  }
  for (TensorInfo& tensor : tensors) {
    MORAINE_CHECK(tensor.file >= 0 && static_cast<size_t>(tensor.file) < checkpoint.files_.size());
    std::string name = tensor.name;
    const auto [known, is_new] = checkpoint.tensors_.try_emplace(std::move(name), std::move(tensor));
    if (is_new) continue;
    throw Error(
        ErrorKind::kBadFile,
        {.what = "two tensors are the same part of the model", .file = checkpoint.directory_, .item = known->first});
  }
  return checkpoint;
}

void Checkpoint::add_files(const std::vector<std::string>& names, BlockFormats block_formats) {
  std::vector<std::string> missing, damaged;
  std::optional<Error> first_fault;
  for (const std::string& name : names) {
    if (!is_there(directory_ / name)) {
      missing.push_back(printable(name));
      continue;
    }
    try {
      add_file(directory_ / name, block_formats);
    } catch (const Error& fault) {
      if (fault.kind() != ErrorKind::kBadFile) throw;
      if (!first_fault) first_fault = fault;
      damaged.push_back(without_directory(fault.what(), directory_));
    }
  }
  if (missing.empty() && damaged.size() == 1) throw *first_fault;
  if (!missing.empty() || !damaged.empty()) throw unusable_shards(directory_, missing, damaged, names.size());
}

void Checkpoint::add_file(const fs::path& file, BlockFormats block_formats) {
  auto descriptor = std::make_shared<UniqueFd>(open_for_read(file));
  for (TensorInfo& tensor : read_safetensors_header(descriptor->get(), file, block_formats)) {
    tensor.file = static_cast<int>(files_.size());
    std::string name = tensor.name;
    const auto [known, is_new] = tensors_.try_emplace(std::move(name), std::move(tensor));
    if (!is_new) {
      throw Error(
          ErrorKind::kBadFile,
          {.what = "the same tensor is in two files",
           .file = file,
           .item = known->first,
           .got = fmt::format("another one in {}", printable(files_[static_cast<size_t>(known->second.file)].string())),
           .action = "remove files of other models or versions from the directory"});
    }
  }
  files_.push_back(file);
  descriptors_.push_back(std::move(descriptor));
}

void Checkpoint::compare_with(const CheckpointIndex& index) {
  const fs::path index_file = directory_ / CheckpointIndex::kFileName;
  size_t n_mapped = 0;
  for (const auto& [name, place] : index.tensors) {
    const TensorInfo* tensor = find(name);
    if (tensor == nullptr || static_cast<size_t>(tensor->file) != place) {
      throw Error(ErrorKind::kBadFile,
                  {.what = "a tensor is not in the file that the index names",
                   .file = index_file,
                   .item = name,
                   .expected = fmt::format("it in {}", printable(index.files[place])),
                   .got = tensor == nullptr ? "it in no file"
                                            : "it in " + printable(index.files[static_cast<size_t>(tensor->file)]),
                   .action = "the index and the files do not belong together: " + std::string(kDownloadAgain)});
    }
    ++n_mapped;
  }
  warn_about_unmapped(index, n_mapped);
  uint64_t total_bytes = 0;
  for (const auto& [name, tensor] : tensors_) total_bytes += tensor.size_bytes;
  if (index.total_size_bytes && *index.total_size_bytes != total_bytes) {
    warnings_.push_back(fmt::format("{}: total_size says {} bytes, the tensors have {}", printable(index_file.string()),
                                    *index.total_size_bytes, total_bytes));
  }
}

void Checkpoint::warn_about_unmapped(const CheckpointIndex& index, size_t n_mapped) {
  if (n_mapped == tensors_.size()) return;
  std::vector<std::string_view> mapped;
  mapped.reserve(index.tensors.size());
  for (const auto& [name, place] : index.tensors) mapped.push_back(name);
  std::sort(mapped.begin(), mapped.end());
  const auto first = std::find_if(tensors_.begin(), tensors_.end(), [&](const auto& entry) {
    return !std::binary_search(mapped.begin(), mapped.end(), std::string_view(entry.first));
  });
  warnings_.push_back(fmt::format("{}: {} tensors are in the files but not in weight_map, the first is '{}'",
                                  printable((directory_ / CheckpointIndex::kFileName).string()),
                                  tensors_.size() - n_mapped, printable(first->first)));
}

const TensorInfo* Checkpoint::find(std::string_view name) const {
  const auto found = tensors_.find(name);
  return found == tensors_.end() ? nullptr : &found->second;
}

const TensorInfo& Checkpoint::at(std::string_view name) const {
  const TensorInfo* tensor = find(name);
  if (tensor == nullptr) {
    throw Error(ErrorKind::kBadFile, {.what = "the checkpoint has no such tensor",
                                      .file = directory_,
                                      .item = std::string(name),
                                      .action = "check that config.json belongs to these weights"});
  }
  return *tensor;
}

void Checkpoint::read(const TensorInfo& tensor, std::span<std::byte> out) const {
  MORAINE_CHECK(out.size() == tensor.size_bytes);
  MORAINE_CHECK(tensor.file >= 0 && static_cast<size_t>(tensor.file) < files_.size());
  const auto file = static_cast<size_t>(tensor.file);
  pread_exact(descriptors_[file]->get(), out, tensor.offset, files_[file]);
}

}  // namespace moraine::quant
