#include "tools/record_reader.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "quant/checksum.h"
#include "quant/error.h"

namespace moraine::tools {

namespace {

constexpr uint64_t kPageBytes = quant::AlignedBuffer::kAlignment;  // what O_DIRECT asks of offset, size and address
constexpr uint64_t kBounceBytes = 4u << 20;

/// Fills `out` from byte `offset` of a file that is open with O_DIRECT. False if anything is not as it should be: the
/// page cache will tell.
bool read_direct(int fd, std::span<std::byte> out, uint64_t offset, std::span<std::byte> bounce) {
  while (!out.empty()) {
    const uint64_t skip = offset % kPageBytes;
    const bool in_place =
        skip == 0 && out.size() >= kPageBytes && reinterpret_cast<uintptr_t>(out.data()) % kPageBytes == 0;
    const uint64_t pages = in_place ? out.size() / kPageBytes : (skip + out.size() + kPageBytes - 1) / kPageBytes;
    const uint64_t wanted = std::min(pages * kPageBytes, kBounceBytes);
    const ssize_t got = ::pread(fd, in_place ? out.data() : bounce.data(), wanted, static_cast<off_t>(offset - skip));
    if (got < 0 && errno == EINTR) continue;
    if (got <= static_cast<ssize_t>(skip)) return false;
    const uint64_t usable = std::min<uint64_t>(static_cast<uint64_t>(got) - skip, out.size());
    if (!in_place) std::memcpy(out.data(), bounce.data() + skip, usable);
    out = out.subspan(usable);
    offset += usable;
  }
  return true;
}

}  // namespace

RecordReader::RecordReader(const offload::ExpertRecordSource& source) : source_(source) {
  for (const std::filesystem::path& file : source.files()) {
    files_.push_back({.plain = quant::open_for_read(file),
                      .direct = quant::UniqueFd(::open(file.c_str(), O_RDONLY | O_DIRECT | O_CLOEXEC))});
  }
}

RecordReader::Scratch RecordReader::take_scratch(uint64_t raw_bytes) const {
  Scratch scratch;
  {
    const std::lock_guard lock(mutex_);
    if (!scratches_.empty()) {
      scratch = std::move(scratches_.back());
      scratches_.pop_back();
    }
  }
  if (scratch.bounce.size() == 0) scratch.bounce = quant::AlignedBuffer(kBounceBytes);
  if (scratch.raw.size() < raw_bytes) scratch.raw = quant::AlignedBuffer(raw_bytes);
  return scratch;
}

void RecordReader::read_extent(const offload::Extent& extent, std::span<std::byte> out,
                               std::span<std::byte> bounce) const {
  const auto index = static_cast<size_t>(extent.file);
  const File& file = files_[index];
  if (file.direct && read_direct(file.direct.get(), out, extent.offset, bounce)) return;
  quant::pread_exact(file.plain.get(), out, extent.offset, source_.files()[index]);
}

quant::AlignedBuffer RecordReader::read(offload::ExpertId id) const {
  quant::AlignedBuffer record(source_.record_bytes(id));
  read(id, record.span());
  return record;
}

void RecordReader::read(offload::ExpertId id, std::span<std::byte> record) const {
  MORAINE_CHECK(record.size() == source_.record_bytes(id));
  const std::vector<offload::Extent> extents = source_.extents(id);
  uint64_t raw_bytes = 0;
  for (const offload::Extent& extent : extents) raw_bytes += extent.size_bytes;
  const bool in_place = source_.reads_in_place();
  Scratch scratch = take_scratch(in_place ? 0 : raw_bytes);
  const std::span<std::byte> raw = in_place ? record : scratch.raw.span().first(raw_bytes);
  uint64_t at = 0;
  for (const offload::Extent& extent : extents) {
    read_extent(extent, raw.subspan(at, extent.size_bytes), scratch.bounce.span());
    at += extent.size_bytes;
  }
  source_.finish(id, raw, record);
  const std::lock_guard lock(mutex_);
  scratches_.push_back(std::move(scratch));
}

uint64_t most_bytes_per_record(const offload::ExpertRecordSource& source) {
  constexpr uint64_t kStripBytes = 4u << 20;
  if (source.experts().empty()) return 0;
  uint64_t raw_bytes = 0;
  if (!source.reads_in_place()) {
    for (const offload::Extent& extent : source.extents(source.experts().front())) raw_bytes += extent.size_bytes;
  }
  return source.max_record_bytes() + raw_bytes + kBounceBytes + kStripBytes;
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
