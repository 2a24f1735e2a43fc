#include "runtime/tensor_loader.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "quant/checksum.h"
#include "quant/dequantize.h"
#include "quant/expert_pack.h"
#include "quant/packed_matrix.h"
#include "quant/quantize.h"

namespace moraine::runtime {
namespace {

using quant::DType;

/// Weights that are converted at a time: their f32 form (16 MiB) is the largest buffer of a load.
constexpr int64_t kPieceElements = int64_t{4} << 20;

/// Rows of a piece: whole FP8 squares, which are whole row groups too.
int64_t rows_of_piece(int64_t rows, int64_t cols) {
  static_assert(quant::kFp8Block % quant::kRowGroup == 0);
  const int64_t squares = std::max<int64_t>(1, kPieceElements / cols / quant::kFp8Block);
  return std::min(rows, squares * quant::kFp8Block);
}

}  // namespace

TensorLoader::TensorLoader(const quant::Checkpoint& checkpoint) : checkpoint_(checkpoint) {
  if (!quant::PackIndex::present(checkpoint.directory())) return;
  for (const auto& [name, value] : quant::PackIndex::read(checkpoint.directory()).tensor_checksums) {
    checksums_.emplace(name, value);
  }
}

uint64_t TensorLoader::read_once(const quant::TensorInfo& tensor, uint64_t piece_bytes, const Use& use,
                                 std::optional<quant::Error>& fault) const {
  quant::ChecksumStream stream;
  std::vector<std::byte> piece;
  for (uint64_t first = 0; first < tensor.size_bytes; first += piece.size()) {
    piece.resize(std::min(piece_bytes, tensor.size_bytes - first));
    quant::TensorInfo part = tensor;
    part.offset += first;
    part.size_bytes = piece.size();
    checkpoint_.read(part, piece);
    stream.update(piece);
    try {
      if (!fault) use(first, piece);
    } catch (const quant::Error& error) {
      fault = error;
    }
  }
  return stream.digest();
}

void TensorLoader::read(const quant::TensorInfo& tensor, uint64_t piece_bytes, const Use& use) const {
  const auto expected = checksums_.find(tensor.name);
  std::optional<quant::Error> fault;
  uint64_t sum = read_once(tensor, piece_bytes, use, fault);
  if (expected != checksums_.end() && sum != expected->second) {
    fault.reset();
    sum = read_once(tensor, piece_bytes, use, fault);
  }
  if (expected != checksums_.end() && sum != expected->second) {
    throw quant::Error(quant::ErrorKind::kChecksum,
                       {.what = "wrong checksum: the bytes are not those that were written",
                        .file = checkpoint_.files()[static_cast<size_t>(tensor.file)],
                        .item = tensor.name,
                        .offset = tensor.offset,
                        .expected = quant::checksum_text(expected->second),
                        .got = quant::checksum_text(sum),
                        .action = "check the drive, then convert the model again"});
  }
  if (fault) throw located(*fault, tensor);
}

std::vector<std::byte> TensorLoader::read_whole(const quant::TensorInfo& tensor) const {
  std::vector<std::byte> bytes(tensor.size_bytes);
  read(tensor, tensor.size_bytes,
       [&](uint64_t, std::span<const std::byte> piece) { std::copy(piece.begin(), piece.end(), bytes.begin()); });
  return bytes;
}

quant::Error TensorLoader::located(const quant::Error& error, const quant::TensorInfo& tensor) const {
  return quant::Error(error.kind(), {.what = error.what(),
                                     .file = checkpoint_.files()[static_cast<size_t>(tensor.file)],
                                     .item = tensor.name,
                                     .offset = tensor.offset});
}

std::vector<float> TensorLoader::load_vector(const CheckpointTensor& tensor) const {
  const std::vector<std::byte> bytes = read_whole(*tensor.weight);
  std::vector<float> values(bytes.size() / quant::row_bytes(tensor.weight->dtype, 1));
  quant::dequantize_row(tensor.weight->dtype, bytes, values);
  if (std::all_of(values.begin(), values.end(), [](float value) { return std::isfinite(value); })) return values;
  throw located(quant::Error(quant::ErrorKind::kBadFile, {.what = "holds NaN or infinity"}), *tensor.weight);
}

void TensorLoader::load_matrix(const CheckpointTensor& tensor, DType type, int64_t rows, int64_t cols,
                               std::span<std::byte> out) const {
  if (tensor.value_weight != nullptr) return load_split_kv_b(tensor, type, rows, cols, out);
  const DType stored = tensor.weight->dtype;
  const std::vector<std::byte> scale_inv =
      tensor.scale_inv != nullptr ? read_whole(*tensor.scale_inv) : std::vector<std::byte>{};
  // The scales of a packed FP8 matrix lie behind all its rows: it is made as a whole.
  const int64_t piece_rows = type == DType::kF8E4M3 ? rows : rows_of_piece(rows, cols);
  const uint64_t row_bytes = quant::row_bytes(stored, cols);
  const uint64_t group_bytes = quant::packed_group_bytes(type, cols);
  const uint64_t square_row_bytes = static_cast<uint64_t>((cols + quant::kFp8Block - 1) / quant::kFp8Block) * 4;
  read(*tensor.weight, static_cast<uint64_t>(piece_rows) * row_bytes,
       [&](uint64_t first_byte, std::span<const std::byte> piece) {
         const auto first_row = static_cast<int64_t>(first_byte / row_bytes);
         const auto row_count = static_cast<int64_t>(piece.size() / row_bytes);
         std::span<const std::byte> scales = scale_inv;
         if (!scales.empty()) {
           const auto squares = static_cast<uint64_t>((row_count + quant::kFp8Block - 1) / quant::kFp8Block);
           scales = scales.subspan(static_cast<uint64_t>(first_row / quant::kFp8Block) * square_row_bytes,
                                   squares * square_row_bytes);
         }
         const auto target = out.subspan(static_cast<uint64_t>(first_row / quant::kRowGroup) * group_bytes,
                                         quant::packed_bytes(type, row_count, cols));
         pack_checkpoint_tensor(stored, piece, scales, type, row_count, cols, target, first_row);
       });
}

void TensorLoader::load_split_kv_b(const CheckpointTensor& tensor, DType type, int64_t rows, int64_t cols,
                                   std::span<std::byte> out) const {
  const quant::TensorInfo& key = *tensor.weight;          // [heads, cols, nope]
  const quant::TensorInfo& value = *tensor.value_weight;  // [heads, v, cols]
  const int64_t heads = key.shape[0], nope = key.shape[2], v = value.shape[1], head_rows = nope + v;
  MORAINE_CHECK(rows == heads * head_rows && cols == key.shape[1]);
  const std::vector<std::byte> key_bytes = read_whole(key), value_bytes = read_whole(value);
  const auto of_head = [&](const std::vector<std::byte>& bytes, int64_t head) {
    const size_t head_bytes = bytes.size() / static_cast<size_t>(heads);
    return std::span(bytes).subspan(static_cast<size_t>(head) * head_bytes, head_bytes);
  };
  const int64_t step = quant::kRowGroup / std::gcd(quant::kRowGroup, head_rows);  // heads that make whole row groups
  std::vector<float> transposed(static_cast<size_t>(cols * nope));
  std::vector<float> values;  // [heads of the step, nope | v, cols]
  for (int64_t first = 0; first < heads; first += step) {
    const int64_t count = std::min(step, heads - first);
    values.resize(static_cast<size_t>(count * head_rows * cols));
    for (int64_t h = 0; h < count; ++h) {
      float* const head = values.data() + h * head_rows * cols;
      quant::dequantize_row(key.dtype, of_head(key_bytes, first + h), transposed);
      for (int64_t row = 0; row < nope; ++row) {
        for (int64_t col = 0; col < cols; ++col)
          head[row * cols + col] = transposed[static_cast<size_t>(col * nope + row)];
      }
      quant::dequantize_row(value.dtype, of_head(value_bytes, first + h),
                            {head + nope * cols, static_cast<size_t>(v * cols)});
    }
    const auto at = static_cast<uint64_t>(first * head_rows / quant::kRowGroup) * quant::packed_group_bytes(type, cols);
    try {
      quant::quantize_packed(type, values, count * head_rows, cols,
                             out.subspan(at, quant::packed_bytes(type, count * head_rows, cols)));
    } catch (const quant::Error& error) {
      throw located(error, key);
    }
  }
}

}  // namespace moraine::runtime
