#include "tools/pack_parts.h"

#include <fmt/format.h>

#include <algorithm>
#include <future>
#include <memory>
#include <optional>

#include "quant/checksum.h"
#include "quant/file_io.h"
#include "quant/json.h"
#include "tools/in_order.h"
#include "tools/record_reader.h"

namespace moraine::tools {

namespace fs = std::filesystem;

namespace {

/// The expert files of a pack while they are written, and the records that they miss, layer by layer.
class MissingRecords {
 public:
  MissingRecords(const ExpertFiles& files, const MakeRecord& make)
      : files_(files), make_(make), writers_(files.layers.size()) {}

  /// The writer of a layer, opened when it is first asked for: it looks at what an earlier run left.
  quant::ExpertFileWriter& writer_of(size_t index) {
    if (writers_[index] == nullptr) {
      const ExpertFileTask& task = files_.layers[index];
      writers_[index] =
          std::make_unique<quant::ExpertFileWriter>(files_.directory, task.layer, task.layout, task.n_experts);
    }
    return *writers_[index];
  }
  void close_writer_of(size_t index) { writers_[index].reset(); }

  /// Begins to make the next one; an invalid future if all are begun.
  std::future<quant::AlignedBuffer> begin() {
    for (; layer_ < files_.layers.size(); ++layer_, expert_.reset()) {
      if (!expert_) expert_ = writer_of(layer_).next_expert();
      if (*expert_ >= files_.layers[layer_].n_experts) continue;
      return std::async(std::launch::async,
                        [this, layer = layer_, expert = (*expert_)++, record = room_for(layer_)]() mutable {
                          make_(layer, expert, record.span());
                          return std::move(record);
                        });
    }
    return {};
  }
  /// Takes back a record that was written: fresh memory costs more than copying (docs/decisions.md, "Conversion").
  void reuse(size_t index, quant::AlignedBuffer record) {
    if (files_.layers[index].layout == room_layout_) room_.push_back(std::move(record));
  }

 private:
  quant::AlignedBuffer room_for(size_t index) {
    const quant::ExpertLayout& layout = files_.layers[index].layout;
    if (!(layout == room_layout_)) room_.clear();
    room_layout_ = layout;
    if (room_.empty()) return quant::AlignedBuffer(layout.record_bytes);
    quant::AlignedBuffer record = std::move(room_.back());
    room_.pop_back();
    return record;
  }

  const ExpertFiles& files_;
  const MakeRecord& make_;
  std::vector<std::unique_ptr<quant::ExpertFileWriter>> writers_;  // [files.layers.size()], null before and after use
  size_t layer_ = 0;                                               // of the record that is begun next
  std::optional<int32_t> expert_;                                  // likewise; nothing: its writer was not asked yet
  std::vector<quant::AlignedBuffer> room_;                         // of records of room_layout_ that are written
  quant::ExpertLayout room_layout_;
};

}  // namespace

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
  const auto filled = [&](const quant::TensorInfo* tensor) {
    std::vector<std::byte> bytes(tensor->size_bytes);
    fill(*tensor, bytes);
    return bytes;
  };
  // The next tensor is read while one is written: no more than two are in memory.
  const std::vector<quant::TensorInfo>& tensors = shards_[index];
  std::future<std::vector<std::byte>> coming = std::async(std::launch::async, filled, &tensors.front());
  for (size_t i = 0; i < tensors.size(); ++i) {
    const std::vector<std::byte> bytes = coming.get();
    if (i + 1 < tensors.size()) coming = std::async(std::launch::async, filled, &tensors[i + 1]);
    if (writer) writer->write(bytes);
    pack.tensor_checksums.emplace_back(tensors[i].name, quant::checksum(bytes));
    advance(tensors[i].size_bytes, "resident tensors");
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

int records_in_memory(int threads, uint64_t bytes_of_each) {
  constexpr int kBeyondCores = 4;  // they wait for the drive, to be read and to be written
  constexpr uint64_t kMostBytes = uint64_t{6} << 30;
  const uint64_t most = std::max<uint64_t>(1, kMostBytes / std::max<uint64_t>(1, bytes_of_each));
  return static_cast<int>(std::min<uint64_t>(static_cast<uint64_t>(std::max(1, threads) + kBeyondCores), most));
}

std::vector<quant::PackedLayer> write_expert_files(const ExpertFiles& files, const MakeRecord& make,
                                                   const PackAdvance& advance) {
  MissingRecords missing(files, make);
  InOrder<quant::AlignedBuffer> records(files.records_in_memory, [&] { return missing.begin(); });
  std::vector<quant::PackedLayer> layers;
  for (size_t index = 0; index < files.layers.size(); ++index) {
    const ExpertFileTask& task = files.layers[index];
    quant::ExpertFileWriter& writer = missing.writer_of(index);
    advance(task.layout.record_bytes * static_cast<uint64_t>(writer.next_expert()), task.note);
    while (!writer.has_all()) {
      quant::AlignedBuffer record = records.next();
      writer.append(record.span());
      missing.reuse(index, std::move(record));
      advance(task.layout.record_bytes, task.note);
    }
    layers.push_back(writer.finish());
    missing.close_writer_of(index);
  }
  return layers;
}

}  // namespace moraine::tools
