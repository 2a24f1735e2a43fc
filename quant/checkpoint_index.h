#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace moraine::quant {

/// What model.safetensors.index.json says, every file name checked to be a plain *.safetensors name.
struct CheckpointIndex {
  static constexpr const char* kFileName = "model.safetensors.index.json";

  std::vector<std::string> files;                       // each once, ascending
  std::vector<std::pair<std::string, size_t>> tensors;  // name, index into files; in the order of the text
  std::optional<uint64_t> total_size_bytes;             ///< advisory, some publishers' are wrong
};

/// Reads and validates it. Throws Error(kBadFile) on bad JSON, a missing or empty weight_map, or an unsafe file name.
CheckpointIndex read_checkpoint_index(const std::filesystem::path& file);

}  // namespace moraine::quant
