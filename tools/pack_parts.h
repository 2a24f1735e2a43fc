#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "quant/aligned_buffer.h"
#include "quant/expert_pack.h"
#include "quant/safetensors.h"

namespace moraine::tools {

/// Hears of bytes of a pack that are written, or were found written.
using PackAdvance = std::function<void(uint64_t bytes, const std::string& note)>;

/// The resident tensors of a pack, spread over safetensors files of a bounded size. A file gets its name only when it
/// is whole; one that is there already is not written again.
class ResidentShards {
 public:
  /// Fills the bytes of a tensor.
  using Fill = std::function<void(const quant::TensorInfo& tensor, std::span<std::byte> bytes)>;

  /// `tensors` in the order in which they are to lie in the files.
  ResidentShards(std::vector<quant::TensorInfo> tensors, uint64_t shard_bytes);

  uint64_t total_bytes() const { return total_bytes_; }
  /// Writes what is missing and notes all checksums in `pack`. Throws quant::Error(kIo / kNotEnough).
  void write(const std::filesystem::path& directory, const Fill& fill, const PackAdvance& advance,
             quant::PackIndex& pack) const;

 private:
  std::string file_name(size_t index) const;
  void write_file(size_t index, const std::filesystem::path& directory, const Fill& fill, const PackAdvance& advance,
                  quant::PackIndex& pack) const;
  void write_index(const std::filesystem::path& directory, quant::PackIndex& pack) const;

  std::vector<std::vector<quant::TensorInfo>> shards_;  // tensors by the file they go to
  uint64_t total_bytes_ = 0;
};

/// One MoE layer of a pack to be written.
struct ExpertFileTask {
  std::filesystem::path directory;
  int layer = 0;
  quant::ExpertLayout layout;
  int n_experts = 0;
  int threads = 1;   ///< that make records; no more than as many are in memory
  std::string note;  ///< for `advance`
};

/// Writes the layer's expert file, going on where an earlier run stood. `make` gives the record of an expert; it is
/// called from several threads. Throws quant::Error.
quant::PackedLayer write_expert_file(const ExpertFileTask& task,
                                     const std::function<quant::AlignedBuffer(int32_t expert)>& make,
                                     const PackAdvance& advance);

}  // namespace moraine::tools
