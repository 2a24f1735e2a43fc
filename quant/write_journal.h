#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "quant/file_io.h"

namespace moraine::quant {

/// Which parts of a file are written, in their order, so that an interrupted run goes on: a line of what is being
/// written and then one line "<part> <checksum>" per part. A line may reach the disk before its part does: who goes on
/// compares the checksums.
class WriteJournal {
 public:
  /// Opens or creates the journal `file` of at most `most_parts` parts; one about something else (`identity`, a line)
  /// starts anew, and a torn line ends the list. A lock keeps two runs from writing one file. Throws Error(kIo /
  /// kNotEnough).
  WriteJournal(std::filesystem::path file, const std::string& identity, size_t most_parts);

  /// XXH3-64 of the parts that are written.
  const std::vector<uint64_t>& checksums() const { return checksums_; }
  /// Forgets all but the first `parts`.
  void keep(size_t parts);
  void append(uint64_t checksum);
  /// Flushes it to the disk.
  void sync() const { sync_file(fd_.get(), file_); }
  /// Removes the file: all is written.
  void remove();

 private:
  std::filesystem::path file_;
  UniqueFd fd_;
  uint64_t header_bytes_;
  uint64_t size_bytes_ = 0;  // up to the end of the last whole line
  std::vector<uint64_t> checksums_;
};

}  // namespace moraine::quant
