#include "tools/record_reader.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <optional>
#include <utility>

#include "quant/checksum.h"
#include "quant/error.h"
#include "quant/file_io.h"

namespace moraine::tools {
namespace {

constexpr uint64_t kReadBytes = 4u << 20;  // of a system read: several threads keep the drive busy with one each

}  // namespace

/// Memory of one read() after the other.
struct RecordReader::Scratch {
  explicit Scratch(const offload::FileSet& files)
      : scheduler(files, {.piece_bytes = kReadBytes, .bounce_buffers = 1, .in_flight_bytes = kReadBytes}) {}

  offload::ReadScheduler scheduler;
  quant::AlignedBuffer raw;  // what a record is made of
};

RecordReader::RecordReader(const offload::ExpertRecordSource& source) : source_(source), files_(source.files()) {}

RecordReader::~RecordReader() = default;

std::unique_ptr<RecordReader::Scratch> RecordReader::take_scratch() const {
  const std::lock_guard lock(mutex_);
  if (scratches_.empty()) return std::make_unique<Scratch>(files_);
  std::unique_ptr<Scratch> scratch = std::move(scratches_.back());
  scratches_.pop_back();
  return scratch;
}

void RecordReader::read_extents(std::span<const offload::Extent> extents, std::span<std::byte> out,
                                offload::ReadScheduler& scheduler) const {
  for (const offload::Extent& extent : extents) {
    scheduler.add({.file = extent.file, .offset = extent.offset, .destination = out.first(extent.size_bytes)});
    out = out.subspan(extent.size_bytes);
  }
  while (std::optional<offload::ReadPiece> piece = scheduler.next()) {
    const ssize_t got =
        ::pread(files_.fd(piece->file, piece->direct), piece->buffer + piece->done_bytes,
                piece->length_bytes - piece->done_bytes, static_cast<off_t>(piece->offset + piece->done_bytes));
    offload::PieceOutcome outcome = offload::absorb_read(*piece, got >= 0 ? got : -errno, files_);
    scheduler.settle(*piece, std::move(outcome));
  }
  std::vector<offload::ReadCompletion> completions;
  scheduler.take_completions(completions);
  for (const offload::ReadCompletion& completion : completions) {
    if (completion.failure) throw quant::Error(completion.failure->kind, completion.failure->detail);
  }
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
  std::unique_ptr<Scratch> scratch = take_scratch();
  if (!in_place && scratch->raw.size() < raw_bytes) scratch->raw = quant::AlignedBuffer(raw_bytes);
  const std::span<std::byte> raw = in_place ? record : scratch->raw.span().first(raw_bytes);
  read_extents(extents, raw, scratch->scheduler);
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
  return source.max_record_bytes() + raw_bytes + kReadBytes + kStripBytes;
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
