#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "quant/file_io.h"

namespace moraine::tools {

/// Which parts of a file are written, in their order, so that an interrupted run goes on: "<file>.journal" holds a line
/// of what is being written and then one line "<part> <checksum>" per part. A line may reach the disk before its part
/// does: who goes on compares the checksums.
class ExportJournal {
 public:
  /// Opens or creates it; one about something else (`identity`, a line) starts anew, and a torn line ends the list. A
  /// lock keeps two runs from writing one file. Throws quant::Error(kIo / kNotEnough).
  ExportJournal(const std::filesystem::path& file, const std::string& identity);

  /// XXH3-64 of the parts that are written.
  const std::vector<uint64_t>& checksums() const { return checksums_; }
  /// Forgets all but the first `parts`.
  void keep(size_t parts);
  void append(uint64_t checksum);
  /// Removes the file: all is written.
  void remove();

 private:
  std::filesystem::path path_;
  std::string header_;
  quant::UniqueFd fd_;
  uint64_t size_bytes_ = 0;
  std::vector<uint64_t> checksums_;
};

}  // namespace moraine::tools
