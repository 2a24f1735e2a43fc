#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "quant/expert_pack.h"
#include "runtime/model_config.h"
#include "runtime/weight_loader.h"
#include "tools/pack_destination.h"
#include "tools/pack_parts.h"
#include "tools/random_weights.h"

namespace moraine::tools {

struct SynthOptions {
  std::filesystem::path destination;
  std::filesystem::path tokenizer_source;  ///< model directory whose tokenizer files are taken
  std::string preset;
  std::optional<int64_t> dense_layers;  ///< nothing: as many as the preset's model has
  std::optional<int64_t> moe_layers;
  std::optional<int64_t> vocab_size;  ///< rows of embedding and head; nothing: the preset's
  quant::DType experts = quant::DType::kQ4_K;
  quant::DType resident = quant::DType::kQ8_0;  ///< projections: Q8_0, BF16, F8_E4M3 or another block format
  uint64_t seed = 0;
  int threads = 1;                           ///< that make expert records; one more writes
  uint64_t shard_bytes = uint64_t{4} << 30;  ///< resident tensors beyond this go into further files
  FreeBytes free_bytes;                      ///< for tests; empty: statvfs
};

/// config.json of the preset with the layers and the vocabulary that are asked for. Throws quant::Error(kUsage).
std::string synth_config_text(const SynthOptions& options);
/// How a resident tensor's weights are spread: projections as 1/√columns.
Spread synth_spread(const runtime::ResidentTensor& tensor);
/// Makes the record of an expert, whose padding is zero already: the same for the same arguments.
void fill_synth_record(uint64_t seed, const quant::ExpertLayout& layout, int layer, int32_t expert,
                       std::span<std::byte> record);

/// Called after every record and tensor, from the thread that called run(). An exception thrown here interrupts the
/// work as a crash would.
using SynthProgress = std::function<void(uint64_t done_bytes, uint64_t total_bytes, const std::string& note)>;

/// Writes a pack (quant::PackIndex) of a published model's shapes with random weights: for measuring without the model.
/// Projections have deviation 1/√columns, so that activations stay of one size through any number of layers; router
/// rows are alike in length and biases small, so that experts are chosen about evenly. The same options give the same
/// bytes; whatever ends it, run() again goes on where it stood.
class Synthesizer {
 public:
  /// Plans and looks at the destination; writes nothing. Throws quant::Error: kUsage for options that make no sense or
  /// a destination that holds something else, kBadFile for the tokenizer, kNotEnough if the disk has too little room.
  explicit Synthesizer(SynthOptions options);

  /// The destination already holds this very pack, finished.
  bool already_done() const { return destination_->finished() || done_; }
  /// It holds a part of it.
  bool resumes() const { return destination_->resumes(); }
  uint64_t total_bytes() const { return total_bytes_; }
  const runtime::ModelConfig& config() const { return config_; }

  /// Throws quant::Error; what is written stays and is used the next time.
  void run(const SynthProgress& progress);

 private:
  std::vector<quant::TensorInfo> plan_resident();
  std::string identity() const;
  void fill_resident(const quant::TensorInfo& tensor, std::span<std::byte> bytes) const;

  SynthOptions options_;
  std::string config_text_;
  runtime::ModelConfig config_;
  std::map<std::string, Spread> spreads_;  // of resident tensors, by name
  std::optional<ResidentShards> shards_;
  std::optional<PackDestination> destination_;
  quant::ExpertLayout layout_;
  uint64_t total_bytes_ = 0;
  bool done_ = false;
};

}  // namespace moraine::tools
