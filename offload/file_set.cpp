#include "offload/file_set.h"

#include <fcntl.h>
#include <sys/stat.h>

#include "quant/error.h"

namespace moraine::offload {
namespace {

/// False if the file system says that it wants more for direct reads than kAlignmentBytes, or takes none. Kernels
/// before 6.1 do not say; the first read will tell then.
bool suits_alignment([[maybe_unused]] int fd) {
#ifdef STATX_DIOALIGN
  struct statx info = {};
  if (::statx(fd, "", AT_EMPTY_PATH, STATX_DIOALIGN, &info) != 0 || (info.stx_mask & STATX_DIOALIGN) == 0) return true;
  const auto suits = [](uint32_t bytes) { return bytes > 0 && FileSet::kAlignmentBytes % bytes == 0; };
  return suits(info.stx_dio_mem_align) && suits(info.stx_dio_offset_align);
#else
  return true;
#endif
}

}  // namespace

FileSet::FileSet(std::span<const std::filesystem::path> files, bool direct) {
  for (const std::filesystem::path& file : files) {
    OpenFile& opened = files_.emplace_back();
    opened.path = file;
    opened.plain_fd = quant::open_for_read(file);
    if (direct) opened.direct_fd = quant::UniqueFd(::open(file.c_str(), O_RDONLY | O_CLOEXEC | O_DIRECT));
    opened.direct = opened.direct_fd && suits_alignment(opened.direct_fd.get());
    // Read-ahead would fill the page cache with bytes that nobody asked for.
    ::posix_fadvise(opened.plain_fd.get(), 0, 0, POSIX_FADV_RANDOM);
  }
}

const FileSet::OpenFile& FileSet::at(int file) const {
  MORAINE_CHECK(file >= 0 && file < count());
  return files_[static_cast<size_t>(file)];
}

void FileSet::forget(int file, uint64_t offset, uint64_t size_bytes) const {
  // Advice only: if the system won't take it, the bytes stay in the page cache until it needs the room.
  ::posix_fadvise(at(file).plain_fd.get(), static_cast<off_t>(offset), static_cast<off_t>(size_bytes),
                  POSIX_FADV_DONTNEED);
}

uint64_t FileSet::size_bytes(int file) const {
  struct stat info = {};
  return ::fstat(at(file).plain_fd.get(), &info) == 0 ? static_cast<uint64_t>(info.st_size) : 0;
}

}  // namespace moraine::offload
