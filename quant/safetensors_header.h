#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "quant/dtype.h"
#include "quant/safetensors.h"

namespace moraine::quant {

/// One tensor as a safetensors header states it, each field valid by itself but not yet checked against the others.
struct HeaderEntry {
  std::string name;
  DType dtype = DType::kF32;
  std::vector<int64_t> shape;
  uint64_t begin = 0;  ///< of its bytes, from the first byte after the header
  uint64_t end = 0;
  uint64_t header_offset = 0;  ///< where its name stands in the file
};

/// Reads a header's JSON text, which begins at byte `text_offset` of `file`. Refuses with Error(kBadFile) everything
/// but {name: {"dtype", "shape", "data_offsets"}} and an optional "__metadata__" of strings, where it stands; and block
/// formats as dtype unless they are allowed.
std::vector<HeaderEntry> read_header_entries(std::string_view header, uint64_t text_offset, uint64_t max_header_bytes,
                                             const std::filesystem::path& file, BlockFormats block_formats);

}  // namespace moraine::quant
