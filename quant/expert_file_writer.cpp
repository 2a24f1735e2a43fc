#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
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
std::string header_line(int layer, const ExpertLayout& layout, int n_experts) {
  return fmt::format("moraine-journal 1 layer {} experts {} record {} gate {} up {} down {}\n", layer, n_experts,
                     layout.record_bytes, matrix_text(layout.gate), matrix_text(layout.up), matrix_text(layout.down));
}

/// One finished record: "<expert> <checksum>".
std::string record_line(size_t expert, uint64_t sum) {
  return fmt::format("{} {}\n", expert, checksum_text(sum));
}

/// Checksums of the finished records that the journal's text names under the wanted header; nothing if the header is
/// another. A line that is not exactly what was written ends the list: it was torn by a crash.
std::optional<std::vector<uint64_t>> parse_journal(std::string_view text, const std::string& header, int n_experts) {
  if (!text.starts_with(header)) return std::nullopt;
  text.remove_prefix(header.size());
  std::vector<uint64_t> sums;
  while (sums.size() < static_cast<size_t>(n_experts)) {
    const size_t end = text.find('\n');
    if (end == std::string_view::npos || end < 17) break;
    uint64_t sum = 0;
    for (const char c : text.substr(end - 16, 16)) {
      sum = sum << 4 | static_cast<uint64_t>(c <= '9' ? (c - '0') & 15 : (c - 'a' + 10) & 15);
    }
    if (text.substr(0, end + 1) != record_line(sums.size(), sum)) break;
    sums.push_back(sum);
    text.remove_prefix(end + 1);
  }
  return sums;
}

UniqueFd open_for_update(const std::filesystem::path& file) {
  UniqueFd fd(::open(file.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644));
  if (!fd) throw system_error(errno, "could not create the file", file, "check the directory's permissions");
  return fd;
}

/// A second descriptor whose writes go past the page cache, or none where the file system has no such thing. A record
/// is not read again soon, and copying gigabytes through the cache took 4 times as long as the drive needs.
UniqueFd open_for_direct_writes(const std::filesystem::path& file) {
  return UniqueFd(::open(file.c_str(), O_WRONLY | O_DIRECT | O_CLOEXEC));
}

void truncate(int fd, uint64_t bytes, const std::filesystem::path& file) {
  if (file_bytes(fd, file) == bytes) return;
  if (::ftruncate(fd, static_cast<off_t>(bytes)) != 0) throw system_error(errno, "could not shorten the file", file);
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
  std::filesystem::path directory, final_path, part_path, journal_path;
  int layer = 0;
  ExpertLayout layout;
  size_t n_experts = 0;
  std::string header;
  std::vector<uint64_t> checksums;  // of the finished records, in order
  UniqueFd part, journal;
  UniqueFd direct;             // on `part` too; none if writes have to go through the page cache
  uint64_t journal_bytes = 0;  // up to the end of the last whole line
  bool finished = false;       // the file has its final name

  uint64_t part_bytes() const { return checksums.size() * layout.record_bytes; }
  uint64_t all_bytes() const { return n_experts * layout.record_bytes; }

  void open();
  void write_record(std::span<const std::byte> record);
  bool recognise_finished();
  void keep_verified_records();
  void restart_journal();
};

/// Takes up what an earlier run left, under a lock on the journal, so that two conversions can't write one file.
void ExpertFileWriter::Impl::open() {
  journal = open_for_update(journal_path);
  if (::flock(journal.get(), LOCK_EX | LOCK_NB) != 0) {
    if (errno != EWOULDBLOCK) throw system_error(errno, "could not lock the file", journal_path);
    throw Error(ErrorKind::kIo, {.what = "another conversion is writing this layer",
                                 .file = journal_path,
                                 .action = "wait for it to end, or choose another target directory"});
  }
  std::string text(std::min<uint64_t>(file_bytes(journal.get(), journal_path), header.size() + 32 * n_experts), '\0');
  pread_exact(journal.get(), std::as_writable_bytes(std::span(text)), 0, journal_path);
  const auto known = parse_journal(text, header, static_cast<int>(n_experts));
  if (known) {
    checksums = *known;
    if (recognise_finished()) return;
  } else {
    truncate(journal.get(), 0, journal_path);  // first, so that no line of another layout can follow the new header
  }
  part = open_for_update(part_path);
  direct = open_for_direct_writes(part_path);
  keep_verified_records();
  restart_journal();
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
  if (checksums.size() != n_experts || std::filesystem::exists(part_path, error)) return false;
  const uint64_t bytes = std::filesystem::file_size(final_path, error);
  finished = !error && bytes == all_bytes();
  return finished;
}

/// A journal line can reach the disk before its record does, so every record is read once more. The first that is short
/// or different, and all behind it, are written again.
void ExpertFileWriter::Impl::keep_verified_records() {
  const uint64_t available = file_bytes(part.get(), part_path) / layout.record_bytes;
  checksums.resize(std::min<uint64_t>(checksums.size(), available));
  for (size_t expert = 0; expert < checksums.size(); ++expert) {
    const uint64_t offset = expert * layout.record_bytes;
    if (checksum_of_range(part.get(), offset, layout.record_bytes, part_path) != checksums[expert]) {
      checksums.resize(expert);
    }
  }
  truncate(part.get(), part_bytes(), part_path);
}

/// Writes the header and the lines of the records that were kept.
void ExpertFileWriter::Impl::restart_journal() {
  std::string text = header;
  for (size_t expert = 0; expert < checksums.size(); ++expert) text += record_line(expert, checksums[expert]);
  pwrite_all(journal.get(), std::as_bytes(std::span(text)), 0, journal_path);
  truncate(journal.get(), text.size(), journal_path);
  journal_bytes = text.size();
}

ExpertFileWriter::ExpertFileWriter(std::filesystem::path directory, int layer, const ExpertLayout& layout,
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
  impl_->directory = std::move(directory);
  impl_->layer = layer;
  impl_->layout = layout;
  impl_->n_experts = static_cast<size_t>(n_experts);
  impl_->header = header_line(layer, layout, n_experts);
  impl_->open();
}

ExpertFileWriter::~ExpertFileWriter() = default;

int ExpertFileWriter::next_expert() const {
  return static_cast<int>(impl_->checksums.size());
}

bool ExpertFileWriter::has_all() const {
  return impl_->checksums.size() == impl_->n_experts;
}

void ExpertFileWriter::append(std::span<const std::byte> record) {
  MORAINE_CHECK(!has_all());
  MORAINE_CHECK(record.size() == impl_->layout.record_bytes);
  const uint64_t sum = checksum(record);
  const std::string line = record_line(impl_->checksums.size(), sum);
  try {
    impl_->write_record(record);
    pwrite_all(impl_->journal.get(), std::as_bytes(std::span(line)), impl_->journal_bytes, impl_->journal_path);
  } catch (const Error& error) {
    rethrow_with_action(error, impl_->part_path, impl_->all_bytes() - impl_->part_bytes());
  }
  impl_->journal_bytes += line.size();
  impl_->checksums.push_back(sum);
}

PackedLayer ExpertFileWriter::finish() {
  MORAINE_CHECK(has_all());
  if (!impl_->finished) {
    try {
      sync_file(impl_->part.get(), impl_->part_path);
      sync_file(impl_->journal.get(), impl_->journal_path);
    } catch (const Error& error) {
      rethrow_with_action(error, impl_->part_path, impl_->layout.record_bytes);
    }
    if (::rename(impl_->part_path.c_str(), impl_->final_path.c_str()) != 0) {
      throw system_error(errno, "could not rename the finished file", impl_->part_path, kResume);
    }
    sync_directory(impl_->directory);
    impl_->finished = true;
  }
  return {impl_->layer, expert_file_name(impl_->layer), impl_->layout, impl_->checksums};
}

}  // namespace moraine::quant
