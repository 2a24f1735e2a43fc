#pragma once

#include <filesystem>
#include <optional>
#include <span>
#include <vector>

#include "offload/expert_record_source.h"
#include "quant/expert_pack.h"
#include "quant/safetensors.h"
#include "runtime/checkpoint_tensor.h"
#include "runtime/model_config.h"

namespace moraine::runtime {

/// The routed experts of a Hugging Face checkpoint, run in place: an expert is three tensors (and their FP8 scales)
/// anywhere in the shards; they are re-laid-out, or quantized, when they arrive.
class CheckpointExperts final : public offload::ExpertRecordSource {
 public:
  /// Experts of layers first_k_dense_replace … layer_count − 1; `type` absent keeps each matrix as stored.
  CheckpointExperts(const quant::Checkpoint& checkpoint, const ModelConfig& config, int64_t layer_count,
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
  /// gate, up and down of one expert, as stored.
  struct Expert {
    CheckpointTensor matrices[3];
  };

  const Expert& expert(offload::ExpertId id) const;

  quant::Checkpoint checkpoint_;  // owns the TensorInfos that experts_ points to
  std::vector<std::filesystem::path> files_;
  int64_t first_layer_;
  int64_t n_routed_experts_;
  std::vector<Expert> experts_;  // [(layer − first_layer_) × n_routed_experts + expert]
  std::vector<offload::ExpertId> ids_;
  std::vector<quant::ExpertLayout> layouts_;
  uint64_t max_record_bytes_ = 0;
};

}  // namespace moraine::runtime
