#pragma once

#include <filesystem>
#include <functional>
#include <mutex>
#include <span>
#include <vector>

#include "offload/expert_record_source.h"
#include "quant/aligned_buffer.h"
#include "quant/file_io.h"

namespace moraine::tools {

/// Reads expert records one by one with pread, past the page cache where the file system allows that, for work that
/// needs no cache (convert). Safe from several threads.
class RecordReader {
 public:
  /// `source` must outlive this. Throws quant::Error(kIo / kBadFile) if a file can't be opened.
  explicit RecordReader(const offload::ExpertRecordSource& source);

  /// The finished record. Throws as pread_exact and ExpertRecordSource::finish do.
  quant::AlignedBuffer read(offload::ExpertId id) const;
  /// The same into memory that is there: of the record's size, aligned as quant::AlignedBuffer. Bytes between matrices
  /// are left as they are.
  void read(offload::ExpertId id, std::span<std::byte> record) const;

 private:
  struct File {
    quant::UniqueFd plain;
    quant::UniqueFd direct;  // none where O_DIRECT is refused
  };
  /// Memory of one read() after the other.
  struct Scratch {
    quant::AlignedBuffer bounce;  // for pieces of a file as O_DIRECT wants them
    quant::AlignedBuffer raw;     // what a record is made of
  };

  Scratch take_scratch(uint64_t raw_bytes) const;
  void read_extent(const offload::Extent& extent, std::span<std::byte> out, std::span<std::byte> bounce) const;

  const offload::ExpertRecordSource& source_;
  std::vector<File> files_;  // [source.files().size()]
  mutable std::mutex mutex_;
  mutable std::vector<Scratch> scratches_;  // that no thread uses
};

/// Bytes that RecordReader::read() takes while it makes a record, of the largest one: the record, what it is made of, a
/// strip of it as f32.
uint64_t most_bytes_per_record(const offload::ExpertRecordSource& source);

/// XXH3-64 of a whole file, read in pieces. `on_bytes` hears of each piece's size.
uint64_t file_checksum(const std::filesystem::path& file, const std::function<void(uint64_t)>& on_bytes = {});

}  // namespace moraine::tools
