#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <span>
#include <vector>

#include "offload/block_reader.h"

namespace moraine::offload {

struct DiskSpeedOptions {
  ReaderKind reader = ReaderKind::kAuto;
  std::vector<std::filesystem::path> mirrors = {};  ///< copies of the files on other drives: all are measured together
  uint64_t piece_bytes = kRequestBytes;             ///< read from end to end, a record's; a multiple of 4096
  int pieces_in_flight = 4;
  double lead_s = 0.0;  ///< read before what counts: a drive that has rested gives more than it can keep up
  double max_s = 0.8;   ///< of what counts; no read is begun later
  uint64_t seed = 1;    ///< for the order of the pieces
};

/// How fast the drive gives `files` in the way the store reads experts: whole pieces at random places that are a
/// multiple of their size, in requests of kRequestBytes, many in flight, past the page cache. Each piece is read at
/// most once, so small files may end it early (then all of it counts). GB = 10⁹ bytes. Nothing if the file system does
/// not take O_DIRECT (the page cache would be measured) or no file holds a piece. Throws quant::Error if a file can't
/// be opened or read.
std::optional<double> measure_disk_gb_per_s(std::span<const std::filesystem::path> files,
                                            const DiskSpeedOptions& options = {});
/// The same through a reader of these files handed in.
std::optional<double> measure_disk_gb_per_s(std::span<const std::filesystem::path> files,
                                            const DiskSpeedOptions& options, BlockReader& reader);

}  // namespace moraine::offload
