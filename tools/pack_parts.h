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
  int layer = 0;
  quant::ExpertLayout layout;
  int n_experts = 0;
  std::string note;  ///< for PackAdvance
};

/// All expert files of a pack. Records are made side by side, across the ends of layers, and written in order.
struct ExpertFiles {
  std::filesystem::path directory;
  std::vector<ExpertFileTask> layers;
  int records_in_memory = 1;  ///< that are being made, one thread each, or wait to be written
};

/// Makes the record of an expert of the layer `layers[layer_index]`. `record` is aligned as quant::AlignedBuffer and
/// holds zeros or an earlier record of the same layout, so that what the layout leaves between matrices is zero.
using MakeRecord = std::function<void(size_t layer_index, int32_t expert, std::span<std::byte> record)>;

/// Writes the files, going on where an earlier run stood. `make` is called from several threads. Throws quant::Error.
std::vector<quant::PackedLayer> write_expert_files(const ExpertFiles& files, const MakeRecord& make,
                                                   const PackAdvance& advance);

/// How many records may be in memory so that `threads` cores stay busy: a few more than cores, because a record that is
/// being read or written keeps none busy; fewer if their bytes would go beyond 6 GiB. `bytes_of_each`: of a record and
/// of what it is made of.
int records_in_memory(int threads, uint64_t bytes_of_each);

}  // namespace moraine::tools
