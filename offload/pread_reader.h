#pragma once

#include <sys/types.h>

#include <condition_variable>
#include <filesystem>
#include <functional>
#include <mutex>
#include <span>
#include <thread>
#include <vector>

#include "offload/block_reader.h"
#include "offload/read_scheduler.h"

namespace moraine::offload {

struct PreadLimits {
  int threads = 4;  ///< system reads in flight
  SchedulerLimits scheduler;
};

/// The same reader for where io_uring is refused: a few threads that pread, with the same pieces, retries and checks.
class PreadReader : public BlockReader {
 public:
  /// pread(2): (descriptor, destination, bytes, offset) → bytes read or −1 and errno. Tests hand in others.
  using PreadFunction = std::function<ssize_t(int, void*, size_t, off_t)>;

  /// Opens the files; throws quant::Error (kIo / kBadFile) naming the one that can't be opened.
  explicit PreadReader(std::span<const std::filesystem::path> files, const PreadLimits& limits = {},
                       PreadFunction pread_function = {});
  ~PreadReader() override;
  PreadReader(const PreadReader&) = delete;
  PreadReader& operator=(const PreadReader&) = delete;

  void submit(std::span<const ReadRequest> requests) override;
  void wait(std::vector<ReadCompletion>& completions) override;
  void wake() override;
  uint64_t alignment_bytes() const override { return FileSet::kAlignmentBytes; }
  const char* name() const override { return "pread"; }

 private:
  void read_pieces();

  FileSet files_;
  PreadFunction pread_;
  std::mutex mutex_;  // guards what follows
  std::condition_variable has_work_, has_news_;
  ReadScheduler scheduler_;
  bool woken_ = false;
  bool stopping_ = false;
  std::vector<std::jthread> threads_;
};

}  // namespace moraine::offload
