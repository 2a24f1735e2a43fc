#include "tools/converter.h"

#include <fmt/format.h>
#include <sys/statvfs.h>

#include <algorithm>
#include <deque>
#include <future>
#include <limits>
#include <tuple>

#include "quant/aligned_buffer.h"
#include "quant/checksum.h"
#include "quant/error.h"
#include "quant/file_io.h"
#include "quant/json.h"
#include "runtime/model_text.h"
#include "runtime/weight_loader.h"
#include "tools/byte_size.h"
#include "tools/record_reader.h"
#include "tools/source_fingerprint.h"

namespace moraine::tools {
namespace {

namespace fs = std::filesystem;

constexpr const char* kIdentityFile = "moraine_source.json";
constexpr uint64_t kMaxTextFileBytes = 256u << 20;
constexpr uint64_t kSlackBytes = 16u << 20;  // text files, index, journals

uint64_t free_bytes_of(const fs::path& path) {
  struct statvfs status {};
  if (statvfs(path.c_str(), &status) != 0) throw quant::system_error(errno, "could not ask for free disk space", path);
  // File systems that hold no files of ours (/proc) have no size; writing there fails by itself, with a better reason.
  if (status.f_blocks == 0) return std::numeric_limits<uint64_t>::max();
  return static_cast<uint64_t>(status.f_bavail) * status.f_frsize;
}

/// Bytes of the plain files in a directory, 0 if it does not exist.
uint64_t bytes_in(const fs::path& directory) {
  uint64_t total = 0;
  std::error_code fault;
  for (const fs::directory_entry& entry : fs::directory_iterator(directory, fault)) {
    if (entry.is_regular_file(fault)) total += entry.file_size(fault);
  }
  return total;
}

bool has_mtp_tensors(const quant::Checkpoint& checkpoint, const runtime::ModelConfig& config) {
  const std::string prefix = fmt::format("model.layers.{}.", config.num_hidden_layers);
  const auto first = checkpoint.tensors().lower_bound(prefix);
  return first != checkpoint.tensors().end() && first->first.starts_with(prefix);
}

[[noreturn]] void refuse_destination(const std::string& what, const fs::path& file) {
  throw quant::Error(quant::ErrorKind::kUsage,
                     {.what = what, .file = file, .action = "choose a new directory, or empty this one first"});
}

}  // namespace

Converter::Converter(ConvertOptions options)
    : options_(std::move(options)),
      config_(runtime::ModelConfig::from_directory(options_.source)),
      checkpoint_(quant::Checkpoint::open(options_.source)) {
  const bool with_mtp = config_.num_nextn_predict_layers > 0 && has_mtp_tensors(checkpoint_, config_);
  experts_ = runtime::open_expert_source(checkpoint_, config_, options_.experts, with_mtp);
  for (size_t layer = 0; layer < experts_.layouts.size(); ++layer) {
    if (!config_.is_moe_layer(static_cast<int64_t>(layer))) continue;
    moe_layers_.push_back(static_cast<int>(layer));
    total_bytes_ += experts_.layouts[layer].record_bytes * static_cast<uint64_t>(config_.n_routed_experts);
  }
  // Hours of work must not end in a pack that can't be opened: everything a run needs is looked at first.
  (void)runtime::resident_bytes(checkpoint_, config_);
  (void)runtime::ModelText::from_directory(options_.source, config_);
  plan_shards();
  look_at_destination();
  if (!already_done_) check_space();
}

void Converter::plan_shards() {
  std::vector<quant::TensorInfo> tensors;
  for (const auto& [name, tensor] : checkpoint_.tensors()) {
    if (!runtime::is_routed_expert_tensor(name)) tensors.push_back(tensor);
  }
  std::sort(tensors.begin(), tensors.end(), [](const quant::TensorInfo& a, const quant::TensorInfo& b) {
    return std::tie(a.file, a.offset, a.name) < std::tie(b.file, b.offset, b.name);
  });
  uint64_t shard_bytes = 0;
  for (quant::TensorInfo& tensor : tensors) {
    if (shards_.empty() || (shard_bytes > 0 && shard_bytes + tensor.size_bytes > options_.shard_bytes)) {
      shards_.emplace_back();
      shard_bytes = 0;
    }
    shard_bytes += tensor.size_bytes;
    total_bytes_ += tensor.size_bytes;
    shards_.back().push_back(std::move(tensor));
  }
}

std::string Converter::identity() const {
  const quant::Json identity = {{"format", "moraine-source-1"},
                                {"experts", quant::dtype_name(options_.experts)},
                                {"fingerprint", source_fingerprint(checkpoint_)}};
  return identity.dump(2) + "\n";
}

void Converter::look_at_destination() {
  const fs::path& destination = options_.destination;
  std::error_code fault;
  const fs::file_status status = fs::status(destination, fault);
  if (!fs::exists(status)) return;
  if (!fs::is_directory(status)) refuse_destination("the destination is no directory", destination);
  const fs::path identity_file = destination / kIdentityFile;
  if (!fs::exists(identity_file, fault)) {
    const fs::directory_iterator entries(destination, fault);
    if (fault) throw quant::system_error(fault.value(), "could not look into the destination", destination);
    // A crash right at the start may have left the identity's temporary file.
    for (const fs::directory_entry& entry : entries) {
      if (entry.path().filename() == std::string(kIdentityFile) + ".tmp") continue;
      refuse_destination("the destination holds files that are no part of a conversion", entry.path());
    }
    return;
  }
  if (quant::read_text(identity_file, 1u << 20) != identity()) {
    refuse_destination("the destination holds a conversion of another model or with another --experts", destination);
  }
  already_done_ = quant::PackIndex::present(destination);
  resumes_ = !already_done_;
}

void Converter::check_space() const {
  fs::path existing = fs::absolute(options_.destination);
  std::error_code ignored;
  while (!fs::exists(existing, ignored) && existing.has_relative_path()) existing = existing.parent_path();
  const uint64_t free = options_.free_bytes ? options_.free_bytes(existing) : free_bytes_of(existing);
  const uint64_t present = bytes_in(options_.destination);
  const uint64_t wanted = total_bytes_ + kSlackBytes;
  const uint64_t missing = wanted > present ? wanted - present : 0;
  if (missing <= free) return;
  throw quant::Error(quant::ErrorKind::kNotEnough,
                     {.what = "not enough room on the disk for the pack",
                      .file = options_.destination,
                      .expected = fmt::format("{} free", byte_size_text(missing)),
                      .got = byte_size_text(free),
                      .action = "free space or choose another disk; what is converted already is kept"});
}

void Converter::advance(uint64_t bytes, const std::string& note) {
  done_bytes_ += bytes;
  if (progress_) progress_(std::min(done_bytes_, total_bytes_), total_bytes_, note);
}

void Converter::begin() {
  std::error_code fault;
  fs::create_directories(options_.destination, fault);
  if (fault) {
    throw quant::system_error(fault.value(), "could not create the destination", options_.destination,
                              "choose a directory that can be written");
  }
  quant::write_file_atomically(options_.destination / kIdentityFile, identity());
}

void Converter::run(const ConvertProgress& progress) {
  if (already_done_) return;
  begin();
  progress_ = progress;
  done_bytes_ = 0;
  quant::PackIndex pack;
  pack.wanted_type = quant::dtype_name(options_.experts);
  const std::string identity_text = identity();
  pack.file_checksums.emplace_back(kIdentityFile, quant::checksum(std::as_bytes(std::span(identity_text))));
  copy_text_files(pack);
  for (size_t index = 0; index < shards_.size(); ++index) write_shard(index, pack);
  if (shards_.size() > 1) write_shard_index(pack);
  for (const int layer : moe_layers_) pack.layers.push_back(convert_layer(layer));
  pack.write(options_.destination);
  already_done_ = true;
}

void Converter::copy_text_files(quant::PackIndex& pack) {
  for (const char* name :
       {"config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja"}) {
    std::error_code ignored;
    if (!fs::exists(options_.source / name, ignored)) continue;
    const std::string text = quant::read_text(options_.source / name, kMaxTextFileBytes);
    quant::write_file_atomically(options_.destination / name, text);
    pack.file_checksums.emplace_back(name, quant::checksum(std::as_bytes(std::span(text))));
  }
}

std::string Converter::shard_name(size_t index) const {
  if (shards_.size() == 1) return "model.safetensors";
  return fmt::format("model-{:05}-of-{:05}.safetensors", index + 1, shards_.size());
}

void Converter::write_shard(size_t index, quant::PackIndex& pack) {
  const fs::path file = options_.destination / shard_name(index);
  std::error_code ignored;
  // A shard gets its name only when it is whole; one that is there is read again for nothing but the checksums.
  const bool present = fs::exists(file, ignored);
  std::unique_ptr<quant::SafetensorsWriter> writer;
  if (!present) writer = std::make_unique<quant::SafetensorsWriter>(file, shards_[index]);
  for (const quant::TensorInfo& tensor : shards_[index]) {
    std::vector<std::byte> bytes(tensor.size_bytes);
    checkpoint_.read(tensor, bytes);
    if (writer) writer->write(bytes);
    pack.tensor_checksums.emplace_back(tensor.name, quant::checksum(bytes));
    advance(tensor.size_bytes, "resident tensors");
  }
  if (writer) writer->finish();
  pack.file_checksums.emplace_back(shard_name(index), file_checksum(file));
}

void Converter::write_shard_index(quant::PackIndex& pack) {
  uint64_t total_size = 0;
  quant::Json map = quant::Json::object();
  for (size_t index = 0; index < shards_.size(); ++index) {
    for (const quant::TensorInfo& tensor : shards_[index]) {
      map[tensor.name] = shard_name(index);
      total_size += tensor.size_bytes;
    }
  }
  constexpr const char* kName = "model.safetensors.index.json";
  const quant::Json document = {{"metadata", {{"total_size", total_size}}}, {"weight_map", std::move(map)}};
  const std::string text = document.dump(2) + "\n";
  quant::write_file_atomically(options_.destination / kName, text);
  pack.file_checksums.emplace_back(kName, quant::checksum(std::as_bytes(std::span(text))));
}

quant::PackedLayer Converter::convert_layer(int layer) {
  const auto n_experts = static_cast<int32_t>(config_.n_routed_experts);
  const quant::ExpertLayout& layout = experts_.layouts[static_cast<size_t>(layer)];
  const std::string note = fmt::format("layer {} of {}", layer, moe_layers_.back());
  quant::ExpertFileWriter writer(options_.destination, layer, layout, n_experts);
  int32_t begun = writer.next_expert();
  advance(layout.record_bytes * static_cast<uint64_t>(begun), note);

  const RecordReader reader(*experts_.records);
  const auto in_flight = static_cast<size_t>(std::max(1, options_.threads));
  // Records are made side by side and written in order; no more than `in_flight` are in memory. Futures of std::async
  // wait for their thread when destroyed, so nothing outlives an exception.
  std::deque<std::future<quant::AlignedBuffer>> coming;
  while (!writer.has_all()) {
    while (begun < n_experts && coming.size() < in_flight) {
      const offload::ExpertId id{.layer = layer, .expert = begun++};
      coming.push_back(std::async(std::launch::async, [&reader, id] { return reader.read(id); }));
    }
    const quant::AlignedBuffer record = coming.front().get();
    coming.pop_front();
    writer.append(record.span());
    advance(layout.record_bytes, note);
  }
  return writer.finish();
}

}  // namespace moraine::tools
