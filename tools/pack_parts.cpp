#include "tools/pack_parts.h"

#include <fmt/format.h>

#include <algorithm>
#include <deque>
#include <future>
#include <memory>

#include "quant/checksum.h"
#include "quant/file_io.h"
#include "quant/json.h"
#include "tools/record_reader.h"

namespace moraine::tools {

namespace fs = std::filesystem;

ResidentShards::ResidentShards(std::vector<quant::TensorInfo> tensors, uint64_t shard_bytes) {
  uint64_t in_shard_bytes = 0;
  for (quant::TensorInfo& tensor : tensors) {
    if (shards_.empty() || (in_shard_bytes > 0 && in_shard_bytes + tensor.size_bytes > shard_bytes)) {
      shards_.emplace_back();
      in_shard_bytes = 0;
    }
    in_shard_bytes += tensor.size_bytes;
    total_bytes_ += tensor.size_bytes;
    shards_.back().push_back(std::move(tensor));
  }
}

std::string ResidentShards::file_name(size_t index) const {
  if (shards_.size() == 1) return "model.safetensors";
  return fmt::format("model-{:05}-of-{:05}.safetensors", index + 1, shards_.size());
}

void ResidentShards::write(const fs::path& directory, const Fill& fill, const PackAdvance& advance,
                           quant::PackIndex& pack) const {
  for (size_t index = 0; index < shards_.size(); ++index) write_file(index, directory, fill, advance, pack);
  if (shards_.size() > 1) write_index(directory, pack);
}

void ResidentShards::write_file(size_t index, const fs::path& directory, const Fill& fill, const PackAdvance& advance,
                                quant::PackIndex& pack) const {
  const fs::path file = directory / file_name(index);
  std::error_code ignored;
  // A file that is there is made again for nothing but the checksums.
  std::unique_ptr<quant::SafetensorsWriter> writer;
  if (!fs::exists(file, ignored)) {
    writer = std::make_unique<quant::SafetensorsWriter>(file, shards_[index], quant::BlockFormats::kAllowed);
  }
  for (const quant::TensorInfo& tensor : shards_[index]) {
    std::vector<std::byte> bytes(tensor.size_bytes);
    fill(tensor, bytes);
    if (writer) writer->write(bytes);
    pack.tensor_checksums.emplace_back(tensor.name, quant::checksum(bytes));
    advance(tensor.size_bytes, "resident tensors");
  }
  if (writer) writer->finish();
  pack.file_checksums.emplace_back(file_name(index), file_checksum(file));
}

void ResidentShards::write_index(const fs::path& directory, quant::PackIndex& pack) const {
  quant::Json map = quant::Json::object();
  for (size_t index = 0; index < shards_.size(); ++index) {
    for (const quant::TensorInfo& tensor : shards_[index]) map[tensor.name] = file_name(index);
  }
  constexpr const char* kName = "model.safetensors.index.json";
  const quant::Json document = {{"metadata", {{"total_size", total_bytes_}}}, {"weight_map", std::move(map)}};
  const std::string text = document.dump(2) + "\n";
  quant::write_file_atomically(directory / kName, text);
  pack.file_checksums.emplace_back(kName, quant::checksum(std::as_bytes(std::span(text))));
}

quant::PackedLayer write_expert_file(const ExpertFileTask& task,
                                     const std::function<quant::AlignedBuffer(int32_t expert)>& make,
                                     const PackAdvance& advance) {
  quant::ExpertFileWriter writer(task.directory, task.layer, task.layout, task.n_experts);
  int32_t begun = writer.next_expert();
  advance(task.layout.record_bytes * static_cast<uint64_t>(begun), task.note);

  const auto in_flight = static_cast<size_t>(std::max(1, task.threads));
  // Records are made side by side and written in order; no more than `in_flight` are in memory. Futures of std::async
  // wait for their thread when destroyed, so nothing outlives an exception.
  std::deque<std::future<quant::AlignedBuffer>> coming;
  while (!writer.has_all()) {
    while (begun < task.n_experts && coming.size() < in_flight) {
      coming.push_back(std::async(std::launch::async, make, begun++));
    }
    const quant::AlignedBuffer record = coming.front().get();
    coming.pop_front();
    writer.append(record.span());
    advance(task.layout.record_bytes, task.note);
  }
  return writer.finish();
}

}  // namespace moraine::tools
