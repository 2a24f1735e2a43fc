#pragma once

#include <atomic>
#include <cstdint>
#include <deque>
#include <filesystem>
#include <span>

#include "quant/file_io.h"

namespace moraine::offload {

/// The files a reader reads, each open past the page cache (O_DIRECT) where its file system takes that, and plainly for
/// where it doesn't. Thread-safe.
class FileSet {
 public:
  /// What O_DIRECT asks of offset, length and address on every file system Moraine meets. One that asks for more says
  /// so (statx) or answers EINVAL, and is read plainly.
  static constexpr uint64_t kAlignmentBytes = 4096;

  /// Throws quant::Error(kIo / kBadFile) naming the file that can't be opened. `direct` false: plain reads only.
  explicit FileSet(std::span<const std::filesystem::path> files, bool direct = true);

  int count() const { return static_cast<int>(files_.size()); }
  const std::filesystem::path& path(int file) const { return at(file).path; }
  bool direct(int file) const { return at(file).direct.load(std::memory_order_relaxed); }
  int fd(int file, bool direct) const { return direct ? at(file).direct_fd.get() : at(file).plain_fd.get(); }
  /// After a direct read was refused (EINVAL): the file is read plainly from now on.
  void refuse_direct(int file) const { at(file).direct.store(false, std::memory_order_relaxed); }
  /// Tells the page cache to forget a range that was read plainly.
  void forget(int file, uint64_t offset, uint64_t size_bytes) const;
  /// The file's size now; 0 if it can't be told.
  uint64_t size_bytes(int file) const;

 private:
  struct OpenFile {
    std::filesystem::path path;
    quant::UniqueFd plain_fd;
    quant::UniqueFd direct_fd;  // none where O_DIRECT is refused
    mutable std::atomic<bool> direct = false;
  };
  const OpenFile& at(int file) const;

  std::deque<OpenFile> files_;
};

}  // namespace moraine::offload
