#pragma once

#include <filesystem>
#include <functional>
#include <vector>

#include "offload/expert_record_source.h"
#include "quant/aligned_buffer.h"
#include "quant/file_io.h"

namespace moraine::tools {

/// Reads expert records one by one with plain pread, for work that needs no cache (convert, verify). Safe from several
/// threads.
class RecordReader {
 public:
  /// `source` must outlive this. Throws quant::Error(kIo / kBadFile) if a file can't be opened.
  explicit RecordReader(const offload::ExpertRecordSource& source);

  /// The finished record. Throws as pread_exact and ExpertRecordSource::finish do.
  quant::AlignedBuffer read(offload::ExpertId id) const;

 private:
  const offload::ExpertRecordSource& source_;
  std::vector<quant::UniqueFd> descriptors_;  // [source.files().size()]
};

/// Bytes that RecordReader::read() takes while it makes a record, of the largest one: the record, what it is made of, a
/// strip of it as f32.
uint64_t most_bytes_per_record(const offload::ExpertRecordSource& source);

/// XXH3-64 of a whole file, read in pieces. `on_bytes` hears of each piece's size.
uint64_t file_checksum(const std::filesystem::path& file, const std::function<void(uint64_t)>& on_bytes = {});

}  // namespace moraine::tools
