#pragma once

#include <filesystem>
#include <memory>
#include <span>

#include "offload/block_reader.h"
#include "offload/read_scheduler.h"

namespace moraine::offload {

struct UringLimits {
  int queue_depth = 64;  ///< system reads in flight
  SchedulerLimits scheduler;
};

/// Reads through one io_uring, past the page cache where the file system allows it.
class UringReader : public BlockReader {
 public:
  /// 0 if this system lets us read through io_uring, else the errno that says why not.
  static int refusal();

  /// Opens the files. Throws quant::Error: kIo if a file can't be opened or io_uring is refused, saying what to do.
  explicit UringReader(std::span<const std::filesystem::path> files, const UringLimits& limits = {});
  ~UringReader() override;
  UringReader(const UringReader&) = delete;
  UringReader& operator=(const UringReader&) = delete;

  void submit(std::span<const ReadRequest> requests) override;
  void wait(std::vector<ReadCompletion>& completions) override;
  void wake() override;
  uint64_t alignment_bytes() const override { return FileSet::kAlignmentBytes; }
  const char* name() const override { return "io_uring"; }

 private:
  struct Ring;
  std::unique_ptr<Ring> ring_;
};

/// The one place where a refused io_uring becomes an Error.
quant::Error uring_refused_error(int errno_value);

}  // namespace moraine::offload
