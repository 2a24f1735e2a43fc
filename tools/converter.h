#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "quant/expert_pack.h"
#include "quant/safetensors.h"
#include "runtime/expert_source.h"
#include "runtime/model_config.h"

namespace moraine::tools {

struct ConvertOptions {
  std::filesystem::path source;
  std::filesystem::path destination;
  quant::DType experts = quant::DType::kQ8_0;
  int threads = 1;                           ///< that make records; one more writes
  uint64_t shard_bytes = uint64_t{4} << 30;  ///< resident tensors beyond this go into further files
  /// Free bytes of the file system that holds a path; for tests. Empty: statvfs.
  std::function<uint64_t(const std::filesystem::path&)> free_bytes;
};

/// Called after every record and tensor, from the thread that called run(). An exception thrown here interrupts the
/// conversion as a crash would.
using ConvertProgress = std::function<void(uint64_t done_bytes, uint64_t total_bytes, const std::string& note)>;

/// Turns a model directory into a Moraine pack (quant::PackIndex): expert files, resident tensors as they were stored,
/// the text files, the index last. Whatever ends it, run() again goes on where it stood and the finished bytes are the
/// same.
class Converter {
 public:
  /// Opens and checks the source and looks at the destination; writes nothing. Throws quant::Error: kBadFile for the
  /// source, kUsage if the destination holds something else, kNotEnough with the numbers if the disk has too little
  /// room.
  explicit Converter(ConvertOptions options);

  /// The destination already holds this very conversion, finished.
  bool already_done() const { return already_done_; }
  /// It holds a part of it.
  bool resumes() const { return resumes_; }
  uint64_t total_bytes() const { return total_bytes_; }
  const runtime::ExpertSource& experts() const { return experts_; }

  /// Creates the destination and marks it as this conversion's. Throws quant::Error if it can't be written.
  void begin();
  /// begin(), and all the rest. Throws quant::Error; what is written stays and is used the next time.
  void run(const ConvertProgress& progress);

 private:
  void plan_shards();
  void look_at_destination();
  void check_space() const;
  std::string shard_name(size_t index) const;
  void write_shard(size_t index, quant::PackIndex& pack);
  void write_shard_index(quant::PackIndex& pack);
  void copy_text_files(quant::PackIndex& pack);
  quant::PackedLayer convert_layer(int layer);
  void advance(uint64_t bytes, const std::string& note);
  std::string identity() const;

  ConvertOptions options_;
  runtime::ModelConfig config_;
  quant::Checkpoint checkpoint_;
  runtime::ExpertSource experts_;
  std::vector<int> moe_layers_;
  std::vector<std::vector<quant::TensorInfo>> shards_;  // resident tensors by the file they go to
  uint64_t total_bytes_ = 0;
  uint64_t done_bytes_ = 0;
  bool already_done_ = false;
  bool resumes_ = false;
  ConvertProgress progress_;
};

}  // namespace moraine::tools
