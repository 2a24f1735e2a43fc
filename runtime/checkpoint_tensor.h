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

/// A matrix or vector of a checkpoint, with the block scales that FP8 weights come with.
struct CheckpointTensor {
  const quant::TensorInfo* weight = nullptr;
  const quant::TensorInfo* scale_inv = nullptr;  ///< only for F8_E4M3: f32 [ceil(rows/128), ceil(cols/128)]

  uint64_t size_bytes() const { return weight->size_bytes + (scale_inv != nullptr ? scale_inv->size_bytes : 0); }
};

/// Looks tensors up and checks dtype and shape; missing ones are gathered, so that all can be named in one message.
class TensorFinder {
 public:
  explicit TensorFinder(const quant::Checkpoint& checkpoint) : checkpoint_(checkpoint) {}

  /// The tensor of that name and shape [rows, cols] ([rows] if cols is 0). Throws quant::Error(kBadFile) for a wrong
  /// dtype or shape. If it (or its scales) is missing the result's weight is nullptr and check_complete() will throw.
  CheckpointTensor find(const std::string& name, int64_t rows, int64_t cols);
  /// Throws quant::Error(kBadFile) naming the missing tensors (the first 20), if any.
  void check_complete() const;

 private:
  void check_shape(const quant::TensorInfo& tensor, const std::vector<int64_t>& expected) const;

  const quant::Checkpoint& checkpoint_;
  std::vector<std::string> missing_;
};

/// How a tensor stored as `stored` is kept when nobody asks for another format: as it is; F16 as F32 (exact).
quant::DType kept_type(quant::DType stored);

/// The bytes of a CheckpointTensor [rows, cols] → a packed matrix of `type`: as stored if the types agree, else through
/// f32. `scale_inv` is empty unless the stored type is F8_E4M3. Throws quant::Error(kBadFile) for NaN or infinite
/// numbers.
void pack_checkpoint_tensor(quant::DType stored, std::span<const std::byte> weight,
                            std::span<const std::byte> scale_inv, quant::DType type, int64_t rows, int64_t cols,
                            std::span<std::byte> out);

}  // namespace moraine::runtime
