#pragma once

#include <filesystem>
#include <vector>

#include "offload/expert_record_source.h"
#include "quant/expert_pack.h"

namespace moraine::offload {

/// The experts of a Moraine pack: every record lies whole in its layer's file, is read straight into its slot and
/// verified by the checksum that the index holds.
class PackSource : public ExpertRecordSource {
 public:
  /// `index` as PackIndex::read() gave it for `directory`. Opens nothing.
  PackSource(const std::filesystem::path& directory, quant::PackIndex index);

  const std::vector<std::filesystem::path>& files() const override { return files_; }
  std::span<const ExpertId> experts() const override { return experts_; }
  uint64_t max_record_bytes() const override { return max_record_bytes_; }
  uint64_t record_bytes(ExpertId id) const override;
  std::vector<Extent> extents(ExpertId id) const override;
  bool reads_in_place() const override { return true; }
  std::optional<uint64_t> checksum(ExpertId id) const override;
  /// Throws quant::Error(kChecksum) naming layer, expert, file and offset.
  void finish(ExpertId id, std::span<const std::byte> raw, std::span<std::byte> record) const override;

  /// How the records of `layer` are laid out.
  const quant::ExpertLayout& layout(int layer) const;

 private:
  int layer_index(int layer) const;
  const quant::PackedLayer& packed_layer(ExpertId id) const;

  quant::PackIndex index_;
  std::vector<std::filesystem::path> files_;  // [layers of the index]
  std::vector<ExpertId> experts_;             // ascending
  uint64_t max_record_bytes_ = 0;
};

}  // namespace moraine::offload
