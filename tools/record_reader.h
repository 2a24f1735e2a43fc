#pragma once

#include <filesystem>
#include <functional>
#include <memory>
#include <mutex>
#include <span>
#include <vector>

#include "offload/expert_record_source.h"
#include "offload/file_set.h"
#include "offload/read_scheduler.h"
#include "quant/aligned_buffer.h"

namespace moraine::tools {

/// Reads expert records one by one with pread, past the page cache where the file system allows that, for work that
/// needs no cache (convert). Safe from several threads: each reads for itself, with the store's retries and checks, but
/// all through one set of open files (a reader per thread would open 163 shards 2 times for each).
class RecordReader {
 public:
  /// `source` must outlive this. Throws quant::Error(kIo / kBadFile) if a file can't be opened.
  explicit RecordReader(const offload::ExpertRecordSource& source);
  ~RecordReader();

  /// The finished record. Throws quant::Error if it can't be read, and as ExpertRecordSource::finish does.
  quant::AlignedBuffer read(offload::ExpertId id) const;
  /// The same into memory that is there: of the record's size, aligned as quant::AlignedBuffer. Bytes between matrices
  /// are left as they are.
  void read(offload::ExpertId id, std::span<std::byte> record) const;

 private:
  struct Scratch;
  std::unique_ptr<Scratch> take_scratch() const;
  /// Reads the extents one behind the other into `out`.
  void read_extents(std::span<const offload::Extent> extents, std::span<std::byte> out,
                    offload::ReadScheduler& scheduler) const;

  const offload::ExpertRecordSource& source_;
  offload::FileSet files_;
  mutable std::mutex mutex_;
  mutable std::vector<std::unique_ptr<Scratch>> scratches_;  // that no thread uses
};

/// Bytes that RecordReader::read() takes while it makes a record, of the largest one: the record, what it is made of, a
/// strip of it as f32.
uint64_t most_bytes_per_record(const offload::ExpertRecordSource& source);

/// XXH3-64 of a whole file, read in pieces. `on_bytes` hears of each piece's size.
uint64_t file_checksum(const std::filesystem::path& file, const std::function<void(uint64_t)>& on_bytes = {});

}  // namespace moraine::tools
