#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "quant/error.h"
#include "quant/safetensors.h"
#include "runtime/checkpoint_tensor.h"

namespace moraine::runtime {

/// Reads a checkpoint's tensors in pieces of a few megabytes, so that a load needs little memory beside the model, and
/// in a pack compares each with its checksum. Safe from several threads. Throws quant::Error: kChecksum if the bytes
/// are wrong twice, kBadFile for numbers that are none, kIo; always with file, tensor and offset.
class TensorLoader {
 public:
  /// `checkpoint` must outlive this.
  explicit TensorLoader(const quant::Checkpoint& checkpoint);

  /// A vector as f32.
  std::vector<float> load_vector(const CheckpointTensor& tensor) const;  // [size]
  /// A matrix [rows, cols] packed as `type`, into packed_bytes(type, rows, cols): as stored if the types agree, else
  /// through f32.
  void load_matrix(const CheckpointTensor& tensor, quant::DType type, int64_t rows, int64_t cols,
                   std::span<std::byte> out) const;

  /// Takes bytes [first_byte, first_byte + bytes.size()) of a tensor.
  using Use = std::function<void(uint64_t first_byte, std::span<const std::byte> bytes)>;

  /// Reads all of `tensor` in pieces of `piece_bytes` and gives each to `use`; once more from the start if the checksum
  /// then differs: a wrong byte may have come from the bus, not from the medium. What `use` throws counts only if the
  /// bytes are right.
  void read(const quant::TensorInfo& tensor, uint64_t piece_bytes, const Use& use) const;

 private:
  /// load_matrix() for a kv_b_proj in two halves, which it puts together head by head.
  void load_split_kv_b(const CheckpointTensor& tensor, quant::DType type, int64_t rows, int64_t cols,
                       std::span<std::byte> out) const;
  std::vector<std::byte> read_whole(const quant::TensorInfo& tensor) const;
  /// One pass of read(): the checksum of the bytes. `fault` becomes what `use` threw, if it did.
  uint64_t read_once(const quant::TensorInfo& tensor, uint64_t piece_bytes, const Use& use,
                     std::optional<quant::Error>& fault) const;
  /// An error with its place, from one that only knows what is wrong with the numbers.
  quant::Error located(const quant::Error& error, const quant::TensorInfo& tensor) const;

  const quant::Checkpoint& checkpoint_;
  std::map<std::string, uint64_t, std::less<>> checksums_;  // of a pack's tensors by name
};

}  // namespace moraine::runtime
