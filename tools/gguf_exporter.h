#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "quant/gguf.h"
#include "runtime/expert_source.h"
#include "runtime/model_source.h"
#include "runtime/tensor_loader.h"
#include "tools/gguf_parts.h"
#include "tools/pack_destination.h"

namespace moraine::tools {

struct GgufExportOptions {
  std::filesystem::path source;          ///< directory, pack or GGUF file
  std::filesystem::path destination;     ///< the new .gguf file
  std::optional<quant::DType> experts;   ///< nothing: as stored, FP8 as Q8_0
  std::optional<quant::DType> resident;  ///< of projections; nothing: as stored, FP8 as Q8_0
  int threads = 1;                       ///< cores that are to be kept busy
  FreeBytes free_bytes;                  ///< for tests; empty: statvfs
};

/// Writes a model as one GGUF file that other programs read. What is stored in a format that GGUF has keeps its bits,
/// but for kv_b_proj: its first half is transposed, which is exact for plain numbers and a rounding to Q8_0 otherwise.
/// Layers of multi-token prediction are left out, as in the files that are published.
class GgufExporter {
 public:
  /// Opens and checks the source and plans the file; writes nothing. Throws quant::Error: kBadFile for the source,
  /// kUsage if the destination exists or the model can't be exported, kNotEnough if the disk has too little room.
  explicit GgufExporter(GgufExportOptions options);

  uint64_t total_bytes() const { return plan_.total_bytes; }
  const runtime::ExpertSource& experts() const { return experts_; }
  const quant::Checkpoint& checkpoint() const { return checkpoint_; }
  /// Throws quant::Error; the file has its name only if all went well. Whatever ends it, run() again goes on where it
  /// stood and the finished bytes are the same.
  void run(const GgufProgress& progress);

 private:
  void find_sources();
  std::string identity() const;
  const quant::ExpertLayout& layout_of(int64_t layer) const;
  quant::DType type_of(const runtime::ResidentTensor& tensor) const;
  void write_resident(size_t index, quant::GgufWriter& writer) const;
  void write_rows(size_t index, const runtime::CheckpointTensor& source, quant::GgufWriter& writer) const;
  /// Writes rows as the file has them to their places.
  void put_rows(size_t index, int64_t first_row, int64_t count, std::span<const std::byte> bytes,
                quant::GgufWriter& writer) const;
  void write_half_of_kv_b(size_t index, const runtime::CheckpointTensor& source, quant::GgufWriter& writer) const;

  GgufExportOptions options_;
  std::unique_ptr<runtime::ModelSource> source_;
  runtime::ModelConfig config_;
  quant::Checkpoint checkpoint_;
  runtime::TensorLoader loader_;
  runtime::ExpertSource experts_;
  std::map<std::string, runtime::CheckpointTensor> sources_;  // of resident tensors, halves of kv_b_proj included
  GgufPlan plan_;
};

}  // namespace moraine::tools
