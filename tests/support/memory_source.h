#pragma once

#include <algorithm>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <filesystem>
#include <fstream>
#include <mutex>
#include <optional>
#include <span>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "offload/block_reader.h"
#include "offload/expert_name.h"
#include "offload/expert_record_source.h"
#include "quant/checksum.h"
#include "quant/error.h"

namespace moraine::testing {

/// A small made-up model: `layers` × `experts_per_layer`, layers counted from 3.
struct MemoryShape {
  int layers = 2;
  int experts_per_layer = 8;
  uint64_t record_bytes = 8192;
  bool in_place = true;
};

/// Twin of a pack (in place: one file per layer) or of a checkpoint (not: each expert is three unaligned extents in two
/// files, and its record their bytes with every bit turned). finish() knows every byte and throws kChecksum otherwise.
class MemorySource : public offload::ExpertRecordSource {
 public:
  static constexpr int kFirstLayer = 3;

  /// With a directory, the files are written into it for a real reader; without, see MemoryReader.
  explicit MemorySource(const MemoryShape& shape, const std::filesystem::path& directory = {}) : shape_(shape) {
    const int file_count = shape.in_place ? shape.layers : 2;
    contents_.resize(static_cast<size_t>(file_count));
    for (int file = 0; file < file_count; ++file) files_.push_back(directory / ("file" + std::to_string(file)));
    for (int layer = kFirstLayer; layer < kFirstLayer + shape.layers; ++layer) {
      for (int expert = 0; expert < shape.experts_per_layer; ++expert) add({.layer = layer, .expert = expert});
    }
    if (!directory.empty()) write_files();
  }

  const std::vector<std::filesystem::path>& files() const override { return files_; }
  std::span<const offload::ExpertId> experts() const override { return experts_; }
  uint64_t max_record_bytes() const override { return shape_.record_bytes; }
  uint64_t record_bytes(offload::ExpertId) const override { return shape_.record_bytes; }
  std::vector<offload::Extent> extents(offload::ExpertId id) const override { return extents_.at(index(id)); }
  bool reads_in_place() const override { return shape_.in_place; }
  std::optional<uint64_t> checksum(offload::ExpertId id) const override {
    if (!shape_.in_place) return std::nullopt;
    return checksums_.at(index(id));
  }
  void finish(offload::ExpertId id, std::span<const std::byte> raw, std::span<std::byte> record) const override {
    const std::string expected = raw_bytes(id);
    const bool same = std::equal(raw.begin(), raw.end(), expected.begin(), expected.end(),
                                 [](std::byte a, char b) { return a == static_cast<std::byte>(b); });
    if (!same) {
      const offload::Extent extent = extents(id)[0];
      throw quant::Error(quant::ErrorKind::kChecksum, {.what = "wrong bytes",
                                                       .file = files_[static_cast<size_t>(extent.file)],
                                                       .item = offload::expert_name(id),
                                                       .offset = extent.offset});
    }
    if (shape_.in_place) return;
    std::transform(raw.begin(), raw.end(), record.begin(), [](std::byte byte) { return ~byte; });
  }

  /// True if `record` is what finish() makes of this expert.
  bool is_record(offload::ExpertId id, std::span<const std::byte> record) const {
    const std::string raw = raw_bytes(id);
    return std::equal(record.begin(), record.end(), raw.begin(), raw.end(), [this](std::byte a, char b) {
      return a == (shape_.in_place ? static_cast<std::byte>(b) : ~static_cast<std::byte>(b));
    });
  }
  const std::vector<std::string>& contents() const { return contents_; }
  offload::ExpertId id(int layer_from_first, int expert) const {
    return {.layer = kFirstLayer + layer_from_first, .expert = expert};
  }

 private:
  size_t index(offload::ExpertId id) const {
    return static_cast<size_t>((id.layer - kFirstLayer) * shape_.experts_per_layer + id.expert);
  }

  std::string raw_bytes(offload::ExpertId id) const {
    std::string bytes(shape_.record_bytes, '\0');
    uint64_t state = index(id) * 0x9e3779b97f4a7c15u + 1;
    for (char& byte : bytes) {
      state = state * 6364136223846793005u + 1442695040888963407u;
      byte = static_cast<char>(state >> 56);
    }
    return bytes;
  }

  void add(offload::ExpertId id) {
    experts_.push_back(id);
    const std::string bytes = raw_bytes(id);
    checksums_.push_back(quant::checksum(std::as_bytes(std::span(bytes))));
    std::vector<offload::Extent>& extents = extents_.emplace_back();
    const size_t third = bytes.size() / 3;
    const std::vector<size_t> sizes = shape_.in_place
                                          ? std::vector<size_t>{bytes.size()}
                                          : std::vector<size_t>{third, third + 1, bytes.size() - 2 * third - 1};
    size_t position = 0;
    for (size_t part = 0; part < sizes.size(); ++part) {
      const int file = shape_.in_place ? id.layer - kFirstLayer : static_cast<int>((part + index(id)) % 2);
      std::string& content = contents_[static_cast<size_t>(file)];
      if (!shape_.in_place) content += "gap between tensors";
      extents.push_back({.file = file, .offset = content.size(), .size_bytes = sizes[part]});
      content += bytes.substr(position, sizes[part]);
      position += sizes[part];
    }
  }

  void write_files() const {
    for (size_t file = 0; file < files_.size(); ++file) {
      std::ofstream out(files_[file], std::ios::binary | std::ios::trunc);
      out << contents_[file];
      if (!out.flush()) throw std::runtime_error("could not write " + files_[file].string());
    }
  }

  const MemoryShape shape_;
  std::vector<offload::ExpertId> experts_;
  std::vector<std::vector<offload::Extent>> extents_;  // by index()
  std::vector<uint64_t> checksums_;                    // by index()
  std::vector<std::filesystem::path> files_;
  std::vector<std::string> contents_;  // by file
};

/// Twin of a drive: serves a MemorySource's files from memory, urgent requests first, each wait() all that was
/// submitted.
class MemoryReader : public offload::BlockReader {
 public:
  explicit MemoryReader(std::vector<std::string> contents) : contents_(std::move(contents)) {}

  void submit(std::span<const offload::ReadRequest> requests) override {
    requests_.insert(requests_.end(), requests.begin(), requests.end());
  }
  void wait(std::vector<offload::ReadCompletion>& completions) override {
    if (requests_.empty()) {
      std::unique_lock lock(mutex_);
      changed_.wait(lock, [this] { return woken_; });
      woken_ = false;
      return;
    }
    std::stable_partition(requests_.begin(), requests_.end(), [](const auto& request) { return request.urgent; });
    for (const offload::ReadRequest& request : requests_) {
      const std::string& content = contents_.at(static_cast<size_t>(request.file));
      const std::string bytes = content.substr(request.offset, request.destination.size());
      std::transform(bytes.begin(), bytes.end(), request.destination.begin(),
                     [](char byte) { return static_cast<std::byte>(byte); });
      completions.push_back({.tag = request.tag, .bytes_read = bytes.size()});
    }
    requests_.clear();
  }
  void wake() override {
    const std::lock_guard lock(mutex_);
    woken_ = true;
    changed_.notify_one();
  }
  uint64_t alignment_bytes() const override { return 1; }
  const char* name() const override { return "memory"; }

 private:
  const std::vector<std::string> contents_;
  std::vector<offload::ReadRequest> requests_;
  std::mutex mutex_;  // guards woken_
  std::condition_variable changed_;
  bool woken_ = false;
};

}  // namespace moraine::testing
