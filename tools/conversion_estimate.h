#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "quant/safetensors.h"
#include "runtime/expert_source.h"

namespace moraine::tools {

/// What a conversion is going to read and write and what it takes, for `convert --dry-run`.
struct ConversionEstimate {
  size_t source_files = 0;
  size_t source_tensors = 0;
  uint64_t source_bytes = 0;
  uint64_t expert_source_bytes = 0;  ///< of the routed experts, scales included
  size_t expert_layers = 0;
  uint64_t expert_bytes = 0;    ///< written
  uint64_t resident_bytes = 0;  ///< written
  std::string expert_type;      ///< as ExpertSource::type_name
  int threads = 1;
  uint64_t memory_bytes = 0;              ///< an upper bound of what is held at a time
  double make_gb_per_s = 0.0;             ///< expert_source_bytes that `threads` cores turn into records
  std::optional<double> disk_gb_per_s{};  ///< of the source's drive; nothing if it can't be measured

  /// The larger of what the cores and what the drive need, if it gives and takes at the measured speed.
  double duration_s() const;
};

/// Where a conversion goes.
struct ConversionTarget {
  uint64_t total_bytes = 0;  ///< that are written
  int threads = 1;
};

/// Takes about two seconds: one core's speed is measured on random weights, the drive's on the source's files.
/// Throws quant::Error(kIo / kBadFile) if the files can't be read.
ConversionEstimate estimate_conversion(const quant::Checkpoint& checkpoint, const runtime::ExpertSource& experts,
                                       const ConversionTarget& target);

/// Some lines for a person.
std::string estimate_text(const ConversionEstimate& estimate);

}  // namespace moraine::tools
