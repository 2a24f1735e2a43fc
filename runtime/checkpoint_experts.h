#pragma once

#include <filesystem>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "offload/expert_record_source.h"
#include "quant/expert_pack.h"
#include "quant/safetensors.h"
#include "runtime/checkpoint_tensor.h"
#include "runtime/model_config.h"

namespace moraine::runtime {

/// The routed experts of a Hugging Face checkpoint, run in place: an expert is three tensors (and their FP8 scales)
/// anywhere in the shards; they are re-laid-out, or quantized, when they arrive. The FFN of a dense layer can be read
/// the same way, as the one expert of its layer. Tensors of a pack are compared with their checksums.
class CheckpointExperts final : public offload::ExpertRecordSource {
 public:
  /// Experts of layers first_k_dense_replace … layer_count − 1; `type` absent keeps each matrix as stored.
  CheckpointExperts(const quant::Checkpoint& checkpoint, const ModelConfig& config, int64_t layer_count,
                    std::optional<quant::DType> type)
      : CheckpointExperts(checkpoint, routed_records(config, layer_count), type) {}
  /// The FFNs of all layers of a dense model, as expert 0 of each; `type` as in LoadOptions::resident.
  static CheckpointExperts dense_ffns(const quant::Checkpoint& checkpoint, const ModelConfig& config,
                                      std::optional<quant::DType> type);

  const std::vector<std::filesystem::path>& files() const override { return files_; }
  std::span<const offload::ExpertId> experts() const override { return ids_; }
  uint64_t max_record_bytes() const override { return max_record_bytes_; }
  uint64_t record_bytes(offload::ExpertId id) const override {
    return layouts_[static_cast<size_t>(id.layer)].record_bytes;
  }
  std::vector<offload::Extent> extents(offload::ExpertId id) const override;
  bool reads_in_place() const override { return false; }
  void finish(offload::ExpertId id, std::span<const std::byte> raw, std::span<std::byte> record) const override;

  const std::vector<quant::ExpertLayout>& layouts() const { return layouts_; }  // [layer_count]

 private:
  /// Which tensors are records.
  struct Records {
    int64_t first_layer = 0;
    int64_t layer_count = 0;  // of the model; records begin at first_layer
    int64_t per_layer = 0;
    int64_t hidden = 0;
    int64_t intermediate = 0;
    bool are_routed = true;

    std::string prefix(int64_t layer, int64_t expert) const;
  };
  static Records routed_records(const ModelConfig& config, int64_t layer_count);
  CheckpointExperts(const quant::Checkpoint& checkpoint, const Records& records, std::optional<quant::DType> type);

  /// gate, up and down of one expert, as stored.
  struct Expert {
    CheckpointTensor matrices[3];
  };

  const Expert& expert(offload::ExpertId id) const;
  void check_sum(const quant::TensorInfo& tensor, std::span<const std::byte> bytes) const;

  quant::Checkpoint checkpoint_;  // owns the TensorInfos that experts_ points to
  std::vector<std::filesystem::path> files_;
  Records records_;
  std::map<std::string, uint64_t, std::less<>> checksums_;  // of a pack's tensors by name
  std::vector<Expert> experts_;                             // [(layer − first_layer) × per_layer + expert]
  std::vector<offload::ExpertId> ids_;
  std::vector<quant::ExpertLayout> layouts_;
  uint64_t max_record_bytes_ = 0;
};

}  // namespace moraine::runtime
