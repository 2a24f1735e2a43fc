#include "offload/pack_source.h"

#include <algorithm>
#include <utility>

#include "offload/expert_name.h"
#include "quant/checksum.h"
#include "quant/error.h"

namespace moraine::offload {

PackSource::PackSource(const std::filesystem::path& directory, quant::PackIndex index) : index_(std::move(index)) {
  for (const quant::PackedLayer& layer : index_.layers) {
    files_.push_back(directory / layer.file);
    max_record_bytes_ = std::max(max_record_bytes_, layer.layout.record_bytes);
    for (size_t expert = 0; expert < layer.checksums.size(); ++expert) {
      experts_.push_back({.layer = layer.layer, .expert = static_cast<int32_t>(expert)});
    }
  }
  MORAINE_CHECK(std::is_sorted(experts_.begin(), experts_.end()));
}

int PackSource::layer_index(int layer) const {
  const auto found = std::lower_bound(index_.layers.begin(), index_.layers.end(), layer,
                                      [](const quant::PackedLayer& entry, int wanted) { return entry.layer < wanted; });
  MORAINE_CHECK(found != index_.layers.end() && found->layer == layer);
  return static_cast<int>(found - index_.layers.begin());
}

const quant::PackedLayer& PackSource::packed_layer(ExpertId id) const {
  const quant::PackedLayer& layer = index_.layers[static_cast<size_t>(layer_index(id.layer))];
  MORAINE_CHECK(id.expert >= 0 && static_cast<size_t>(id.expert) < layer.checksums.size());
  return layer;
}

const quant::ExpertLayout& PackSource::layout(int layer) const {
  return index_.layers[static_cast<size_t>(layer_index(layer))].layout;
}

uint64_t PackSource::record_bytes(ExpertId id) const {
  return packed_layer(id).layout.record_bytes;
}

std::vector<Extent> PackSource::extents(ExpertId id) const {
  const uint64_t size_bytes = record_bytes(id);
  return {{.file = layer_index(id.layer),
           .offset = static_cast<uint64_t>(id.expert) * size_bytes,
           .size_bytes = size_bytes}};
}

std::optional<uint64_t> PackSource::checksum(ExpertId id) const {
  return packed_layer(id).checksums[static_cast<size_t>(id.expert)];
}

void PackSource::finish(ExpertId id, std::span<const std::byte> raw, std::span<std::byte> record) const {
  MORAINE_CHECK(raw.data() == record.data() && raw.size() == record_bytes(id));
  const uint64_t expected = packed_layer(id).checksums[static_cast<size_t>(id.expert)];
  const uint64_t got = quant::checksum(raw);
  if (got == expected) return;
  const Extent extent = extents(id)[0];
  throw quant::Error(quant::ErrorKind::kChecksum,
                     {.what = "checksum mismatch: these are not the bytes that were written",
                      .file = files_[static_cast<size_t>(extent.file)],
                      .item = expert_name(id),
                      .offset = extent.offset,
                      .expected = quant::checksum_text(expected),
                      .got = quant::checksum_text(got),
                      .action = "run `moraine verify` on the pack, then copy or convert it again"});
}

}  // namespace moraine::offload
