#pragma once

#include <cstdint>
#include <filesystem>
#include <span>

namespace moraine::quant {

/// Writes a NumPy array file (format 1.0, little-endian float32, C order) of shape (rows, cols), tmp + fsync + rename.
/// `values` must have rows × cols elements. Throws Error(kIo / kNotEnough). Format: numpy.lib.format.
void write_npy_f32(const std::filesystem::path& file, std::span<const float> values /* [rows, cols] */, int64_t rows,
                   int64_t cols);

}  // namespace moraine::quant
