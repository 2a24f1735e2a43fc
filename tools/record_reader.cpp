#include "tools/record_reader.h"

#include <algorithm>

#include "quant/checksum.h"

namespace moraine::tools {

RecordReader::RecordReader(const offload::ExpertRecordSource& source) : source_(source) {
  for (const std::filesystem::path& file : source.files()) descriptors_.push_back(quant::open_for_read(file));
}

quant::AlignedBuffer RecordReader::read(offload::ExpertId id) const {
  quant::AlignedBuffer record(source_.record_bytes(id));
  const std::vector<offload::Extent> extents = source_.extents(id);
  uint64_t raw_bytes = 0;
  for (const offload::Extent& extent : extents) raw_bytes += extent.size_bytes;
  quant::AlignedBuffer separate(source_.reads_in_place() ? 0 : raw_bytes);
  const std::span<std::byte> raw = source_.reads_in_place() ? record.span() : separate.span();
  uint64_t at = 0;
  for (const offload::Extent& extent : extents) {
    const auto file = static_cast<size_t>(extent.file);
    quant::pread_exact(descriptors_[file].get(), raw.subspan(at, extent.size_bytes), extent.offset,
                       source_.files()[file]);
    at += extent.size_bytes;
  }
  source_.finish(id, raw, record.span());
  return record;
}

uint64_t most_bytes_per_record(const offload::ExpertRecordSource& source) {
  constexpr uint64_t kStripBytes = 4u << 20;
  if (source.experts().empty()) return 0;
  uint64_t raw_bytes = 0;
  if (!source.reads_in_place()) {
    for (const offload::Extent& extent : source.extents(source.experts().front())) raw_bytes += extent.size_bytes;
  }
  return source.max_record_bytes() + raw_bytes + kStripBytes;
}

uint64_t file_checksum(const std::filesystem::path& file, const std::function<void(uint64_t)>& on_bytes) {
  constexpr uint64_t kPieceBytes = 8u << 20;
  const quant::UniqueFd descriptor = quant::open_for_read(file);
  const uint64_t size_bytes = quant::file_bytes(descriptor.get(), file);
  std::vector<std::byte> piece(std::min(size_bytes, kPieceBytes));
  quant::ChecksumStream stream;
  for (uint64_t offset = 0; offset < size_bytes; offset += piece.size()) {
    const std::span<std::byte> part = std::span(piece).first(std::min<uint64_t>(piece.size(), size_bytes - offset));
    quant::pread_exact(descriptor.get(), part, offset, file);
    stream.update(part);
    if (on_bytes) on_bytes(part.size());
  }
  return stream.digest();
}

}  // namespace moraine::tools
