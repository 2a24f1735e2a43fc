#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "quant/dtype.h"
#include "quant/error.h"

namespace moraine::tools {

/// What `moraine verify` found.
struct VerifyReport {
  static constexpr size_t kMaxListed = 100;

  std::vector<std::string> faults;  ///< the first kMaxListed, one line each
  uint64_t fault_count = 0;
  quant::ErrorKind kind = quant::ErrorKind::kBadFile;  ///< kChecksum as soon as one checksum is wrong
  uint64_t records = 0;                                ///< expert records whose checksum was compared
  uint64_t tensors = 0;  ///< tensors whose checksum was compared (pack) or whose numbers were read (directory)
  uint64_t files = 0;    ///< files whose checksum was compared
  uint64_t bytes_read = 0;

  void add(const quant::Error& fault);
};

using VerifyProgress = std::function<void(uint64_t done_bytes, uint64_t total_bytes, const std::string& note)>;

/// A pack: every checksum of expert records, resident tensors and files. A plain directory or GGUF file: every header,
/// shape and file by the rules that loading applies, and every number read (no NaN, no infinity, FP8 scales above 0).
/// Goes on after a fault. Throws quant::Error only where nothing can be verified at all (no config.json, no index, no
/// GGUF header).
VerifyReport verify_model(const std::filesystem::path& model, const VerifyProgress& progress);

/// Byte offset of the first element that is no usable number (NaN or infinity; with `positive` also 0 and below), or
/// of the first block with such a scale, or -1. Integers have none.
int64_t first_bad_number(quant::DType type, std::span<const std::byte> bytes, bool positive);

}  // namespace moraine::tools
