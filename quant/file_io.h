#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string_view>
#include <utility>

namespace moraine::quant {

/// An owned file descriptor, closed with its owner. -1 means none.
class UniqueFd {
 public:
  UniqueFd() = default;
  explicit UniqueFd(int fd) : fd_(fd) {}
  ~UniqueFd() { reset(); }
  UniqueFd(UniqueFd&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  UniqueFd& operator=(UniqueFd&& other) noexcept;

  int get() const { return fd_; }
  explicit operator bool() const { return fd_ >= 0; }
  void reset();

 private:
  int fd_ = -1;
};

/// Opens a regular file for reading. Throws Error(kIo), or Error(kBadFile) if it does not exist or is no regular file
/// (a directory, device or pipe is never opened).
UniqueFd open_for_read(const std::filesystem::path& file);

/// Opens a file for reading and writing, created if there is none, content kept. Throws Error(kIo / kNotEnough).
UniqueFd open_for_update(const std::filesystem::path& file);

/// Throws Error(kBadFile) if a file that begins with these bytes is a Git-LFS pointer: the few lines of text that stand
/// in a repository for a large file that was not downloaded.
void refuse_lfs_pointer(std::string_view first_bytes, const std::filesystem::path& file);

/// Size of an open or named file in bytes; `file` is for the message. Throws Error(kIo).
uint64_t file_bytes(int fd, const std::filesystem::path& file);
uint64_t file_bytes(const std::filesystem::path& file);

/// Fills `out` from byte `offset`, repeating short and interrupted reads. Throws Error(kIo), or Error(kBadFile) if the
/// file ends before. Safe from several threads on one descriptor.
void pread_exact(int fd, std::span<std::byte> out, uint64_t offset, const std::filesystem::path& file);

/// Writes all of `bytes` at byte `offset`. Throws Error(kNotEnough) when the disk is full, else Error(kIo).
void pwrite_all(int fd, std::span<const std::byte> bytes, uint64_t offset, const std::filesystem::path& file);

/// Cuts a file, or fills it up with zeros that take no room. Throws Error(kIo / kNotEnough).
void resize_file(int fd, uint64_t bytes, const std::filesystem::path& file);

/// Flushes a file's bytes, or a directory's entries, to the disk. Throws Error(kIo / kNotEnough).
void sync_file(int fd, const std::filesystem::path& file);
void sync_directory(const std::filesystem::path& directory);

/// Gives a whole file its name: flushes the open file `temporary` to the disk, renames it, flushes the directory.
/// Throws Error(kIo / kNotEnough).
void publish_file(int fd, const std::filesystem::path& temporary, const std::filesystem::path& file);

/// A file that gets its name only when it is whole: bytes go to `<name>.tmp` beside it, finish() flushes them to the
/// disk and renames. An unfinished one is removed with its owner, and a file of that name that was there before is
/// untouched.
class AtomicFile {
 public:
  /// Creates (or empties) `<file>.tmp`. Throws Error(kIo / kNotEnough).
  explicit AtomicFile(std::filesystem::path file);
  ~AtomicFile();
  AtomicFile(AtomicFile&& other) noexcept;
  AtomicFile& operator=(AtomicFile&&) = delete;

  /// Throws Error(kNotEnough) when the disk is full, else Error(kIo).
  void append(std::span<const std::byte> bytes);
  void append(std::string_view text);
  uint64_t size_bytes() const { return size_bytes_; }

  /// fsync, rename, fsync of the directory. Call once; nothing may follow. Throws Error(kIo / kNotEnough).
  void finish();

 private:
  std::filesystem::path file_;
  std::filesystem::path temporary_;
  UniqueFd fd_;
  uint64_t size_bytes_ = 0;
};

/// An AtomicFile with these bytes: afterwards `file` holds either the old content or all of the new.
void write_file_atomically(const std::filesystem::path& file, std::string_view bytes);

}  // namespace moraine::quant
