#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "quant/dtype.h"
#include "quant/safetensors.h"

namespace moraine::runtime {

/// A matrix or vector of a checkpoint, with the block scales that FP8 weights come with. GGUF files keep kv_b_proj in
/// two tensors: for every head W_UK, transposed for absorbed attention, and W_UV.
struct CheckpointTensor {
  const quant::TensorInfo* weight = nullptr;
  const quant::TensorInfo* scale_inv = nullptr;  ///< only for F8_E4M3: f32 [ceil(rows/128), ceil(cols/128)]

  const quant::TensorInfo* value_weight = nullptr;  ///< W_UV [heads, v, kv_lora_rank]; then `weight` is W_UK
                                                    ///< [heads, kv_lora_rank, nope]

  uint64_t size_bytes() const {
    return weight->size_bytes + (scale_inv != nullptr ? scale_inv->size_bytes : 0) +
           (value_weight != nullptr ? value_weight->size_bytes : 0);
  }
};

/// Looks tensors up and checks dtype and shape; missing ones are gathered, so that all can be named in one message.
class TensorFinder {
 public:
  explicit TensorFinder(const quant::Checkpoint& checkpoint) : checkpoint_(checkpoint) {}

  /// The tensor of that name and shape [rows, cols] ([rows] if cols is 0); kv_b_proj also as k_b_proj and v_b_proj.
  /// Throws quant::Error(kBadFile) for a wrong dtype or shape. If it (or its scales) is missing the result's weight is
  /// nullptr and check_complete() will throw.
  CheckpointTensor find(const std::string& name, int64_t rows, int64_t cols);
  /// Throws quant::Error(kBadFile) naming the missing tensors (the first 20), if any.
  void check_complete() const;

 private:
  std::optional<CheckpointTensor> find_split_kv_b(const std::string& name, int64_t rows, int64_t cols) const;
  void check_shape(const quant::TensorInfo& tensor, const std::vector<int64_t>& expected) const;

  const quant::Checkpoint& checkpoint_;
  std::vector<std::string> missing_;
};

/// How a tensor stored as `stored` is kept when nobody asks for another format: as it is; F16 as F32 (exact).
quant::DType kept_type(quant::DType stored);
/// The same for a tensor. Transposing moves a block's numbers apart, so a kv_b_proj in two tensors becomes F32, or BF16
/// if both halves are: exact, and for R1 in Q8_0 4.1 GB in place of 1.1 GB.
quant::DType kept_type(const CheckpointTensor& tensor);

/// The bytes of a CheckpointTensor [rows, cols] → a packed matrix of `type`: as stored if the types agree, else through
/// f32, of which 128 rows are in memory at a time. `scale_inv` is empty unless the stored type is F8_E4M3; `first_row`
/// is the number of the first row, for messages. Throws quant::Error(kBadFile) for NaN or infinite numbers.
void pack_checkpoint_tensor(quant::DType stored, std::span<const std::byte> weight,
                            std::span<const std::byte> scale_inv, quant::DType type, int64_t rows, int64_t cols,
                            std::span<std::byte> out, int64_t first_row = 0);

}  // namespace moraine::runtime
