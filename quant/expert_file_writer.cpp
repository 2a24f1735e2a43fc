#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <optional>

#include "quant/aligned_buffer.h"
#include "quant/checksum.h"
#include "quant/error.h"
#include "quant/expert_pack.h"
#include "quant/file_io.h"
#include "quant/json.h"
#include "quant/write_journal.h"

namespace moraine::quant {
namespace {

constexpr const char* kResume = "run the same command again; it resumes";
constexpr uint64_t kVerifyPieceBytes = 1u << 20;

std::string layer_name(int layer, const char* suffix) {
  return fmt::format("experts-{:05}{}", layer, suffix);
}

std::string matrix_text(const MatrixDesc& matrix) {
  return fmt::format("{}[{},{}]", dtype_name(matrix.type), matrix.rows, matrix.cols);
}

/// The journal's first line: all that has to agree before its records can be continued.
std::string header_line(int layer, const ExpertLayout& layout, size_t n_experts) {
  return fmt::format("moraine-journal 1 layer {} experts {} record {} gate {} up {} down {}", layer, n_experts,
                     layout.record_bytes, matrix_text(layout.gate), matrix_text(layout.up), matrix_text(layout.down));
}

/// A second descriptor whose writes go past the page cache, or none where the file system has no such thing. A record
/// is not read again soon, and copying gigabytes through the cache took 4 times as long as the drive needs.
UniqueFd open_for_direct_writes(const std::filesystem::path& file) {
  return UniqueFd(::open(file.c_str(), O_WRONLY | O_DIRECT | O_CLOEXEC));
}

uint64_t checksum_of_range(int fd, uint64_t offset, uint64_t bytes, const std::filesystem::path& file) {
  ChecksumStream stream;
  std::vector<std::byte> piece(std::min(bytes, kVerifyPieceBytes));
  for (uint64_t done = 0; done < bytes; done += piece.size()) {
    piece.resize(std::min(bytes - done, kVerifyPieceBytes));
    pread_exact(fd, piece, offset + done, file);
    stream.update(piece);
  }
  return stream.digest();
}

/// A fault while writing `file` as people need it: what to free and that nothing is lost. `missing_bytes` is still to
/// come.
[[noreturn]] void rethrow_with_action(const Error& error, const std::filesystem::path& file, uint64_t missing_bytes) {
  if (error.kind() != ErrorKind::kNotEnough) throw Error(error.kind(), {.what = error.what(), .action = kResume});
  throw Error(error.kind(), {.what = "the disk is full",
                             .file = file,
                             .action = fmt::format("free {} bytes and {}", missing_bytes, kResume)});
}

}  // namespace

std::string expert_file_name(int layer) {
  return layer_name(layer, ".bin");
}
std::string expert_journal_name(int layer) {
  return layer_name(layer, ".journal");
}

struct ExpertFileWriter::Impl {
  std::filesystem::path final_path, part_path, journal_path;
  int layer = 0;
  ExpertLayout layout;
  size_t n_experts = 0;
  std::optional<WriteJournal> journal;  // of the finished records
  UniqueFd part;
  UniqueFd direct;        // on `part` too; none if writes have to go through the page cache
  bool finished = false;  // the file has its final name

  size_t n_written() const { return journal->checksums().size(); }
  uint64_t part_bytes() const { return n_written() * layout.record_bytes; }
  uint64_t all_bytes() const { return n_experts * layout.record_bytes; }

  void open();
  void write_record(std::span<const std::byte> record);
  bool recognise_finished();
  void keep_verified_records();
};

/// Takes up what an earlier run left, under the journal's lock, so that two conversions can't write one file.
void ExpertFileWriter::Impl::open() {
  journal.emplace(journal_path, header_line(layer, layout, n_experts), n_experts);
  if (recognise_finished()) return;
  part = open_for_update(part_path);
  direct = open_for_direct_writes(part_path);
  keep_verified_records();
}

/// Appends a record to the part file: directly if its memory allows that.
void ExpertFileWriter::Impl::write_record(std::span<const std::byte> record) {
  static_assert(AlignedBuffer::kAlignment == 4096);  // as the records, in the file and by their size
  if (direct && reinterpret_cast<uintptr_t>(record.data()) % AlignedBuffer::kAlignment == 0) {
    try {
      return pwrite_all(direct.get(), record, part_bytes(), part_path);
    } catch (const Error& error) {
      if (error.kind() != ErrorKind::kIo) throw;
      direct.reset();  // a file system that wants other alignments; a broken one fails below too
    }
  }
  pwrite_all(part.get(), record, part_bytes(), part_path);
}

/// After finish() and before the index is written: a complete journal and a file of the right size under its final
/// name. It was flushed before it was renamed, so its records need no second reading; `verify` does that.
bool ExpertFileWriter::Impl::recognise_finished() {
  std::error_code error;
  if (n_written() != n_experts || std::filesystem::exists(part_path, error)) return false;
  const uint64_t bytes = std::filesystem::file_size(final_path, error);
  finished = !error && bytes == all_bytes();
  return finished;
}

/// A journal line can reach the disk before its record does, so every record is read once more. The first that is short
/// or different, and all behind it, are written again.
void ExpertFileWriter::Impl::keep_verified_records() {
  const uint64_t available = file_bytes(part.get(), part_path) / layout.record_bytes;
  const size_t noted = std::min<uint64_t>(n_written(), available);
  size_t whole = 0;
  while (whole < noted && checksum_of_range(part.get(), whole * layout.record_bytes, layout.record_bytes, part_path) ==
                              journal->checksums()[whole]) {
    ++whole;
  }
  journal->keep(whole);
  resize_file(part.get(), part_bytes(), part_path);
}

ExpertFileWriter::ExpertFileWriter(const std::filesystem::path& directory, int layer, const ExpertLayout& layout,
                                   int n_experts)
    : impl_(std::make_unique<Impl>()) {
  if (layer < 0 || layer > PackIndex::kMaxLayer || n_experts < 1 || n_experts > PackIndex::kMaxExperts) {
    throw Error(ErrorKind::kBadFile, {.what = "a pack can't hold such a layer",
                                      .expected = fmt::format("layer 0 to {}, 1 to {} experts", PackIndex::kMaxLayer,
                                                              PackIndex::kMaxExperts),
                                      .got = fmt::format("layer {}, {} experts", layer, n_experts)});
  }
  impl_->final_path = directory / expert_file_name(layer);
  impl_->part_path = directory / (expert_file_name(layer) + ".part");
  impl_->journal_path = directory / expert_journal_name(layer);
  impl_->layer = layer;
  impl_->layout = layout;
  impl_->n_experts = static_cast<size_t>(n_experts);
  impl_->open();
}

ExpertFileWriter::~ExpertFileWriter() = default;

int ExpertFileWriter::next_expert() const {
  return static_cast<int>(impl_->n_written());
}

bool ExpertFileWriter::has_all() const {
  return impl_->n_written() == impl_->n_experts;
}

void ExpertFileWriter::append(std::span<const std::byte> record) {
  MORAINE_CHECK(!has_all());
  MORAINE_CHECK(record.size() == impl_->layout.record_bytes);
  try {
    impl_->write_record(record);
    impl_->journal->append(checksum(record));
  } catch (const Error& error) {
    rethrow_with_action(error, impl_->part_path, impl_->all_bytes() - impl_->part_bytes());
  }
}

PackedLayer ExpertFileWriter::finish() {
  MORAINE_CHECK(has_all());
  if (!impl_->finished) {
    try {
      impl_->journal->sync();
      publish_file(impl_->part.get(), impl_->part_path, impl_->final_path);
    } catch (const Error& error) {
      rethrow_with_action(error, impl_->part_path, impl_->layout.record_bytes);
    }
    impl_->finished = true;
  }
  return {impl_->layer, expert_file_name(impl_->layer), impl_->layout, impl_->journal->checksums()};
}

}  // namespace moraine::quant
