#include "offload/open_reader.h"

#include <fmt/format.h>

#include <cstring>
#include <utility>

#include "offload/mirrored_files.h"
#include "offload/pread_reader.h"
#include "offload/striped_reader.h"

namespace moraine::offload {
namespace {

using Inform = std::function<void(const std::string&)>;

/// Whether reads go through io_uring; else through pread. Throws where it is refused but was asked for by name.
bool choose_uring(ReaderKind kind, const Inform& inform, int uring_refusal) {
  if (kind == ReaderKind::kPread) return false;
  if (uring_refusal == 0) return true;
  if (kind == ReaderKind::kUring) throw uring_refused_error(uring_refusal);
  if (inform) {
    inform(fmt::format("io_uring is refused by this system ({}): experts are read with pread, which is slower",
                       std::strerror(uring_refusal)));
  }
  return false;
}

/// One reader of all copies, with room for every drive's pieces: a slow drive must not hold up the others.
std::unique_ptr<BlockReader> open_striped(bool uring, MirroredFiles files, const Inform& inform) {
  const int drives = static_cast<int>(files.drives.size());
  UringLimits uring_limits;
  PreadLimits pread_limits;
  StripeLimits limits;
  limits.piece_bytes = uring_limits.scheduler.piece_bytes;
  const auto full_speed = static_cast<int>(uring_limits.scheduler.in_flight_bytes / limits.piece_bytes);
  limits.pieces_in_flight = uring ? full_speed : pread_limits.threads;
  uring_limits.queue_depth = drives * limits.pieces_in_flight;
  uring_limits.scheduler.bounce_buffers = drives * limits.pieces_in_flight;
  uring_limits.scheduler.in_flight_bytes *= static_cast<uint64_t>(drives);
  pread_limits.threads = drives * limits.pieces_in_flight;
  pread_limits.scheduler.in_flight_bytes *= static_cast<uint64_t>(drives);
  if (inform) {
    for (int drive = 1; drive < drives; ++drive) {
      size_t mirrored = 0;
      for (const auto& copies : files.copies) {
        for (const FileCopy& copy : copies) mirrored += copy.drive == drive ? 1 : 0;
      }
      const auto index = static_cast<size_t>(drive);
      std::string line = fmt::format("experts are read from {} too ({} of {} files)", files.drives[index].string(),
                                     mirrored, files.copies.size());
      if (const auto other = static_cast<size_t>(files.shared_with[index]); other != index) {
        line += fmt::format("; it lies on the same file system as {}, so this gains no speed",
                            files.drives[other].string());
      }
      inform(line);
    }
  }
  std::unique_ptr<BlockReader> inner;
  if (uring) {
    inner = std::make_unique<UringReader>(files.paths, uring_limits);
  } else {
    inner = std::make_unique<PreadReader>(files.paths, pread_limits);
  }
  return std::make_unique<StripedReader>(std::move(inner), std::move(files), limits, inform);
}

}  // namespace

std::unique_ptr<BlockReader> open_reader(ReaderKind kind, std::span<const std::filesystem::path> files,
                                         const Inform& inform, std::span<const std::filesystem::path> mirrors,
                                         int uring_refusal) {
  const bool uring = choose_uring(kind, inform, uring_refusal);
  if (!mirrors.empty()) return open_striped(uring, find_mirrors(files, mirrors), inform);
  if (uring) return std::make_unique<UringReader>(files);
  return std::make_unique<PreadReader>(files);
}

}  // namespace moraine::offload
