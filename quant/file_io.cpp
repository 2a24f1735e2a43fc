#include "quant/file_io.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <limits>
#include <string>

#include "quant/error.h"

namespace moraine::quant {
namespace {

/// Linux moves at most 2 GiB − 4 KiB per call anyway; a smaller piece keeps a long read interruptible.
constexpr size_t kPieceBytes = size_t{1} << 30;
constexpr const char* kDiskAction = "check free space, permissions and the disk";

bool is_end_valid(size_t size_bytes, uint64_t offset) {
  constexpr auto kMaxOffset = static_cast<uint64_t>(std::numeric_limits<off_t>::max());
  return offset <= kMaxOffset && size_bytes <= kMaxOffset - offset;
}

Error ended_early(const std::filesystem::path& file, uint64_t end, uint64_t got) {
  return Error(ErrorKind::kBadFile, {.what = "the file ends too early",
                                     .file = file,
                                     .expected = fmt::format("at least {} bytes", end),
                                     .got = fmt::format("{} bytes", got),
                                     .action = "it is incomplete or was changed meanwhile: get it again"});
}

}  // namespace

UniqueFd& UniqueFd::operator=(UniqueFd&& other) noexcept {
  if (this != &other) {
    reset();
    fd_ = std::exchange(other.fd_, -1);
  }
  return *this;
}

void UniqueFd::reset() {
  if (fd_ >= 0) ::close(fd_);
  fd_ = -1;
}

UniqueFd open_for_read(const std::filesystem::path& file) {
  // O_NONBLOCK: opening a named pipe must not wait for its writer. It has no effect on regular files.
  UniqueFd fd(::open(file.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (!fd) {
    if (errno == ENOENT || errno == ENOTDIR) {
      throw Error(ErrorKind::kBadFile, {.what = "there is no such file", .file = file, .action = "check the path"});
    }
    throw system_error(errno, "could not open the file", file, "check its permissions");
  }
  struct stat status {};
  if (::fstat(fd.get(), &status) != 0) throw system_error(errno, "could not read the file's size", file);
  if (!S_ISREG(status.st_mode)) {
    throw Error(ErrorKind::kBadFile, {.what = "this is not a regular file", .file = file, .action = "check the path"});
  }
  return fd;
}

UniqueFd open_for_update(const std::filesystem::path& file) {
  UniqueFd fd(::open(file.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644));
  if (!fd) {
    throw system_error(errno, "could not create the file", file, "check that the directory exists and is writable");
  }
  return fd;
}

void refuse_lfs_pointer(std::string_view first_bytes, const std::filesystem::path& file) {
  if (!first_bytes.starts_with("version https")) return;
  throw Error(ErrorKind::kBadFile, {.what = "this is a Git-LFS pointer, not the file itself",
                                    .file = file,
                                    .action = "run 'git lfs pull' in its directory or download the file itself"});
}

uint64_t file_bytes(int fd, const std::filesystem::path& file) {
  struct stat status {};
  if (::fstat(fd, &status) != 0) throw system_error(errno, "could not read the file's size", file);
  return static_cast<uint64_t>(status.st_size);
}

uint64_t file_bytes(const std::filesystem::path& file) {
  return file_bytes(open_for_read(file).get(), file);
}

void pread_exact(int fd, std::span<std::byte> out, uint64_t offset, const std::filesystem::path& file) {
  if (!is_end_valid(out.size(), offset)) throw ended_early(file, UINT64_MAX, file_bytes(fd, file));
  size_t done = 0;
  while (done < out.size()) {
    const ssize_t got =
        ::pread(fd, out.data() + done, std::min(out.size() - done, kPieceBytes), static_cast<off_t>(offset + done));
    if (got > 0) {
      done += static_cast<size_t>(got);
    } else if (got == 0) {
      throw ended_early(file, offset + out.size(), offset + done);
    } else if (errno != EINTR) {
      throw system_error(errno, fmt::format("could not read {} bytes at byte {}", out.size(), offset), file,
                         "check the disk");
    }
  }
}

void pwrite_all(int fd, std::span<const std::byte> bytes, uint64_t offset, const std::filesystem::path& file) {
  MORAINE_CHECK(is_end_valid(bytes.size(), offset));
  size_t done = 0;
  while (done < bytes.size()) {
    const ssize_t put = ::pwrite(fd, bytes.data() + done, std::min(bytes.size() - done, kPieceBytes),
                                 static_cast<off_t>(offset + done));
    if (put > 0) {
      done += static_cast<size_t>(put);
    } else if (put == 0 || errno != EINTR) {
      throw system_error(put == 0 ? ENOSPC : errno, fmt::format("could not write {} bytes", bytes.size()), file,
                         kDiskAction);
    }
  }
}

void resize_file(int fd, uint64_t bytes, const std::filesystem::path& file) {
  if (file_bytes(fd, file) == bytes) return;
  if (::ftruncate(fd, static_cast<off_t>(bytes)) != 0) throw system_error(errno, "could not set the file's size", file);
}

void sync_file(int fd, const std::filesystem::path& file) {
  int result = 0;
  do {
    result = ::fsync(fd);
  } while (result != 0 && errno == EINTR);
  // Special files and some network file systems cannot be flushed; everything else is a real loss.
  if (result != 0 && errno != EINVAL && errno != EROFS) {
    throw system_error(errno, "could not flush the file to the disk", file, kDiskAction);
  }
}

void sync_directory(const std::filesystem::path& directory) {
  const std::filesystem::path named = directory.empty() ? std::filesystem::path(".") : directory;
  const UniqueFd fd(::open(named.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!fd) throw system_error(errno, "could not open the directory", named, "check its permissions");
  sync_file(fd.get(), named);
}

void publish_file(int fd, const std::filesystem::path& temporary, const std::filesystem::path& file) {
  sync_file(fd, temporary);
  if (::rename(temporary.c_str(), file.c_str()) != 0) {
    throw system_error(errno, "could not rename the finished file", temporary, kDiskAction);
  }
  sync_directory(file.parent_path());
}

AtomicFile::AtomicFile(std::filesystem::path file) : file_(std::move(file)), temporary_(file_) {
  temporary_ += ".tmp";
  fd_ = open_for_update(temporary_);
  resize_file(fd_.get(), 0, temporary_);
}

AtomicFile::AtomicFile(AtomicFile&& other) noexcept
    : file_(std::move(other.file_)),
      temporary_(std::move(other.temporary_)),
      fd_(std::move(other.fd_)),
      size_bytes_(other.size_bytes_) {}

AtomicFile::~AtomicFile() {
  if (fd_) ::unlink(temporary_.c_str());
}

void AtomicFile::append(std::span<const std::byte> bytes) {
  MORAINE_CHECK(fd_);
  pwrite_all(fd_.get(), bytes, size_bytes_, temporary_);
  size_bytes_ += bytes.size();
}

void AtomicFile::append(std::string_view text) {
  append(std::as_bytes(std::span(text)));
}

void AtomicFile::finish() {
  MORAINE_CHECK(fd_);
  publish_file(fd_.get(), temporary_, file_);
  fd_.reset();
}

void write_file_atomically(const std::filesystem::path& file, std::string_view bytes) {
  AtomicFile out(file);
  out.append(bytes);
  out.finish();
}

}  // namespace moraine::quant
