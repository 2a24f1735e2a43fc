#include "runtime/checkpoint_tensor.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cstring>

#include "quant/dequantize.h"
#include "quant/error.h"
#include "quant/packed_matrix.h"
#include "quant/quantize.h"

namespace moraine::runtime {
namespace {

using quant::DType;

constexpr const char* kVectorTypes = "F32, F16 or BF16";

int64_t fp8_blocks(int64_t size) {
  return (size + quant::kFp8Block - 1) / quant::kFp8Block;
}

/// Copied, because a tensor may lie at any address of its file.
std::vector<float> floats_of(std::span<const std::byte> bytes) {
  std::vector<float> values(bytes.size() / sizeof(float));
  std::memcpy(values.data(), bytes.data(), values.size() * sizeof(float));
  return values;
}

/// Rows of a tensor → `out`; `values` is room for their f32 form.
void pack_strip(DType stored, std::span<const std::byte> weight, std::span<const float> scales, DType type,
                int64_t rows, int64_t cols, std::vector<float>& values, std::span<std::byte> out) {
  const bool is_fp8 = stored == DType::kF8E4M3;
  if (type == stored) {
    return is_fp8 ? quant::pack_fp8(weight, scales, rows, cols, out)
                  : quant::pack_matrix(type, weight, rows, cols, out);
  }
  values.resize(static_cast<size_t>(rows * cols));
  if (is_fp8) {
    quant::dequantize_fp8(weight, scales, rows, cols, values);
  } else {
    quant::dequantize_row(stored, weight, values);
  }
  quant::quantize_packed(type, values, rows, cols, out);
}

}  // namespace

void TensorFinder::check_shape(const quant::TensorInfo& tensor, const std::vector<int64_t>& expected) const {
  if (tensor.shape == expected) return;
  throw quant::Error(quant::ErrorKind::kBadFile,
                     {.what = "wrong shape",
                      .file = checkpoint_.files()[static_cast<size_t>(tensor.file)],
                      .item = tensor.name,
                      .offset = tensor.offset,
                      .expected = fmt::format("[{}] by config.json", fmt::join(expected, ", ")),
                      .got = fmt::format("[{}]", fmt::join(tensor.shape, ", ")),
                      .action = "config.json and the weights are not of the same model; download both again"});
}

CheckpointTensor TensorFinder::find(const std::string& name, int64_t rows, int64_t cols) {
  CheckpointTensor found{.weight = checkpoint_.find(name)};
  if (found.weight == nullptr) {
    if (const auto split = find_split_kv_b(name, rows, cols)) return *split;
    missing_.push_back(name);
    return found;
  }
  check_shape(*found.weight, cols == 0 ? std::vector{rows} : std::vector{rows, cols});
  const auto wrong_dtype = [&](const quant::TensorInfo& tensor, const char* expected) {
    return quant::Error(quant::ErrorKind::kBadFile, {.what = "wrong dtype",
                                                     .file = checkpoint_.files()[static_cast<size_t>(tensor.file)],
                                                     .item = tensor.name,
                                                     .offset = tensor.offset,
                                                     .expected = expected,
                                                     .got = std::string(quant::dtype_name(tensor.dtype)),
                                                     .action = "use the checkpoint as published"});
  };
  switch (found.weight->dtype) {
    case DType::kF32:
    case DType::kF16:
    case DType::kBF16:
      return found;
    case DType::kF8E4M3:
      if (cols != 0) break;
      throw wrong_dtype(*found.weight, kVectorTypes);
    default:
      // Only a pack's files can hold block formats.
      if (quant::block_elements(found.weight->dtype) > 1 && cols != 0) return found;
      throw wrong_dtype(*found.weight, cols != 0 ? "F32, F16, BF16 or F8_E4M3" : kVectorTypes);
  }
  found.scale_inv = checkpoint_.find(name + "_scale_inv");
  if (found.scale_inv == nullptr) {
    missing_.push_back(name + "_scale_inv");
    found.weight = nullptr;
    return found;
  }
  check_shape(*found.scale_inv, {fp8_blocks(rows), fp8_blocks(cols)});
  if (found.scale_inv->dtype != DType::kF32) throw wrong_dtype(*found.scale_inv, "F32");
  return found;
}

std::optional<CheckpointTensor> TensorFinder::find_split_kv_b(const std::string& name, int64_t rows,
                                                              int64_t cols) const {
  constexpr std::string_view kCombined = "kv_b_proj.weight";
  if (!name.ends_with(kCombined)) return std::nullopt;
  const std::string prefix = name.substr(0, name.size() - kCombined.size());
  const quant::TensorInfo* key = checkpoint_.find(prefix + "k_b_proj.weight");
  const quant::TensorInfo* value = checkpoint_.find(prefix + "v_b_proj.weight");
  if (key == nullptr || value == nullptr) return std::nullopt;
  const std::vector<int64_t>& k = key->shape;
  const std::vector<int64_t>& v = value->shape;
  const bool fit =
      k.size() == 3 && v.size() == 3 && k[0] == v[0] && k[1] == cols && v[2] == cols && (k[2] + v[1]) * k[0] == rows;
  const auto is_usable = [](quant::DType type) { return quant::is_weight_dtype(type) && type != DType::kF8E4M3; };
  if (fit && is_usable(key->dtype) && is_usable(value->dtype)) {
    return CheckpointTensor{.weight = key, .scale_inv = nullptr, .value_weight = value};
  }
  const auto text_of = [](const quant::TensorInfo& tensor) {
    return fmt::format("{} [{}]", dtype_name(tensor.dtype), fmt::join(tensor.shape, ", "));
  };
  throw quant::Error(
      quant::ErrorKind::kBadFile,
      {.what = "the two halves of kv_b_proj do not fit",
       .file = checkpoint_.files()[static_cast<size_t>(key->file)],
       .item = key->name,
       .offset = key->offset,
       .expected = fmt::format("[heads, {}, nope] and [heads, v, {}], heads × (nope + v) = {}", cols, cols, rows),
       .got = fmt::format("{} and {}", text_of(*key), text_of(*value)),
       .action = "download the model again"});
}

void TensorFinder::check_complete() const {
  if (missing_.empty()) return;
  constexpr size_t kNamed = 20;
  std::vector<std::string> named(missing_.begin(),
                                 missing_.begin() + static_cast<ptrdiff_t>(std::min(kNamed, missing_.size())));
  const std::string more = missing_.size() > kNamed ? fmt::format(" and {} more", missing_.size() - kNamed) : "";
  throw quant::Error(
      quant::ErrorKind::kBadFile,
      {.what = fmt::format("{} tensors are missing: {}{}", missing_.size(), fmt::join(named, ", "), more),
       .file = checkpoint_.directory(),
       .action = "download the model again, or check that config.json belongs to it"});
}

DType kept_type(DType stored) {
  return stored == DType::kF16 ? DType::kF32 : stored;
}

DType kept_type(const CheckpointTensor& tensor) {
  if (tensor.value_weight == nullptr) return kept_type(tensor.weight->dtype);
  const bool both = tensor.weight->dtype == DType::kBF16 && tensor.value_weight->dtype == DType::kBF16;
  return both ? DType::kBF16 : DType::kF32;
}

void pack_checkpoint_tensor(DType stored, std::span<const std::byte> weight, std::span<const std::byte> scale_inv,
                            DType type, int64_t rows, int64_t cols, std::span<std::byte> out, int64_t first_row) {
  const bool is_fp8 = stored == DType::kF8E4M3;
  const std::vector<float> scales = is_fp8 ? floats_of(scale_inv) : std::vector<float>{};
  const int64_t squares = fp8_blocks(cols);
  // In strips whose f32 form stays in the cache; what is kept as it is needs none.
  const int64_t strip_rows = type == stored ? std::max<int64_t>(1, rows) : quant::kFp8Block;
  std::vector<float> values;
  for (int64_t row = 0; row < rows; row += strip_rows) {
    const int64_t count = std::min(strip_rows, rows - row);
    const uint64_t row_bytes = quant::row_bytes(stored, cols);
    const auto source =
        weight.subspan(static_cast<uint64_t>(row) * row_bytes, static_cast<uint64_t>(count) * row_bytes);
    const auto strip_scales =
        std::span(scales).subspan(is_fp8 ? static_cast<size_t>(row / quant::kFp8Block * squares) : 0,
                                  is_fp8 ? static_cast<size_t>(fp8_blocks(count) * squares) : 0);
    const auto target =
        type == stored
            ? out
            : out.subspan(static_cast<uint64_t>(row / quant::kRowGroup) * quant::packed_group_bytes(type, cols),
                          quant::packed_bytes(type, count, cols));
    try {
      pack_strip(stored, source, strip_scales, type, count, cols, values, target);
    } catch (const quant::Error& error) {
      if (first_row + row == 0) throw;
      throw quant::Error(error.kind(), {.what = fmt::format("counted from row {}: {}", first_row + row, error.what())});
    }
  }
}

}  // namespace moraine::runtime
