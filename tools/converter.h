#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "quant/expert_pack.h"
#include "quant/safetensors.h"
#include "runtime/expert_source.h"
#include "runtime/model_config.h"
#include "runtime/model_source.h"
#include "tools/pack_destination.h"
#include "tools/pack_parts.h"

namespace moraine::tools {

struct ConvertOptions {
  std::filesystem::path source;
  std::filesystem::path destination;
  std::optional<quant::DType> experts;       ///< nothing: as stored
  int threads = 1;                           ///< cores that are to be kept busy
  uint64_t shard_bytes = uint64_t{4} << 30;  ///< resident tensors beyond this go into further files
  bool dry_run = false;                      ///< too little room is no reason to refuse before check_space()
  FreeBytes free_bytes;                      ///< for tests; empty: statvfs
};

/// Called after every record and tensor, from the thread that called run(). An exception thrown here interrupts the
/// conversion as a crash would.
using ConvertProgress = std::function<void(uint64_t done_bytes, uint64_t total_bytes, const std::string& note)>;

/// Turns a model (directory or GGUF file) into a Moraine pack (quant::PackIndex): expert files, resident tensors as
/// they were stored, the text files, the index last. Whatever ends it, run() again goes on where it stood and the
/// finished bytes are the same.
class Converter {
 public:
  /// Opens and checks the source and looks at the destination; writes nothing. Throws quant::Error: kBadFile for the
  /// source, kUsage if the destination holds something else, kNotEnough with the numbers if the disk has too little
  /// room.
  explicit Converter(ConvertOptions options);

  /// The destination already holds this very conversion, finished.
  bool already_done() const { return destination_->finished() || done_; }
  /// It holds a part of it.
  bool resumes() const { return destination_->resumes(); }
  uint64_t total_bytes() const { return total_bytes_; }
  const runtime::ExpertSource& experts() const { return experts_; }
  const quant::Checkpoint& checkpoint() const { return checkpoint_; }

  /// Throws quant::Error(kNotEnough) with the numbers if the disk has too little room.
  void check_space() const { destination_->check_space(total_bytes_, options_.free_bytes); }

  /// Creates the destination and marks it as this conversion's. Throws quant::Error if it can't be written.
  void begin();
  /// begin(), and all the rest. Throws quant::Error; what is written stays and is used the next time.
  void run(const ConvertProgress& progress);

 private:
  /// What the pack's index says of its experts: the type asked for, or the first layer's.
  std::string expert_type() const;
  void copy_text_files(quant::PackIndex& pack) const;
  std::vector<quant::PackedLayer> convert_experts();
  void advance(uint64_t bytes, const std::string& note);

  ConvertOptions options_;
  std::unique_ptr<runtime::ModelSource> source_;
  runtime::ModelConfig config_;
  quant::Checkpoint checkpoint_;
  runtime::ExpertSource experts_;
  std::vector<int> moe_layers_;
  ResidentShards shards_;
  std::optional<PackDestination> destination_;  // set once the source is known to be good
  uint64_t total_bytes_ = 0;
  uint64_t done_bytes_ = 0;
  bool done_ = false;  // by run()
  ConvertProgress progress_;
};

}  // namespace moraine::tools
