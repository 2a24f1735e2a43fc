#include "quant/file_io.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <string>
#include <utility>

#include "support/expect_error.h"
#include "support/temp_dir.h"

namespace moraine::quant {
namespace {

using testing::expect_error;
using testing::file_content;
using testing::TempDir;

bool is_open(int fd) {
  return ::fcntl(fd, F_GETFD) != -1;
}

std::span<const std::byte> bytes_of(std::string_view text) {
  return std::as_bytes(std::span(text));
}

std::string read_range(const std::filesystem::path& file, uint64_t offset, size_t n_bytes) {
  const UniqueFd fd = open_for_read(file);
  std::string text(n_bytes, '?');
  pread_exact(fd.get(), std::as_writable_bytes(std::span(text)), offset, file);
  return text;
}

TEST(UniqueFd, ClosesOnceWithItsLastOwner) {
  const TempDir dir;
  const auto file = dir.write("f", "x");
  int number = -1;
  {
    UniqueFd first = open_for_read(file);
    number = first.get();
    UniqueFd second = std::move(first);
    EXPECT_FALSE(first);
    EXPECT_TRUE(is_open(number));
    UniqueFd third = open_for_read(file);
    const int replaced = third.get();
    third = std::move(second);
    EXPECT_FALSE(is_open(replaced));
    EXPECT_EQ(third.get(), number);
  }
  EXPECT_FALSE(is_open(number));
}

TEST(OpenForRead, RegularFilesOnly) {
  const TempDir dir;
  expect_error(ErrorKind::kBadFile, {"nothing", "no such file"}, [&] { open_for_read(dir / "nothing"); });
  expect_error(ErrorKind::kBadFile, {"not a regular file"}, [&] { open_for_read(dir.path()); });
  expect_error(ErrorKind::kBadFile, {"not a regular file"}, [] { open_for_read("/dev/zero"); });
  // A pipe nobody writes to must not block.
  ASSERT_EQ(::mkfifo((dir / "pipe").c_str(), 0600), 0);
  expect_error(ErrorKind::kBadFile, {"not a regular file"}, [&] { open_for_read(dir / "pipe"); });
}

TEST(RefuseLfsPointer, KnowsOneByItsBeginning) {
  EXPECT_NO_THROW(refuse_lfs_pointer("{\"version https\": 1}", "f"));
  EXPECT_NO_THROW(refuse_lfs_pointer("", "f"));
  expect_error(ErrorKind::kBadFile, {"f: ", "Git-LFS"}, [] { refuse_lfs_pointer("version https://git-lfs", "f"); });
}

TEST(FileBytes, OfOpenAndNamedFiles) {
  const TempDir dir;
  const auto file = dir.write("f", "12345");
  EXPECT_EQ(file_bytes(file), 5u);
  EXPECT_EQ(file_bytes(open_for_read(file).get(), file), 5u);
  expect_error(ErrorKind::kIo, {"f: ", "size"}, [] { file_bytes(-1, "f"); });
}

TEST(PreadExact, ReadsARange) {
  const TempDir dir;
  const auto file = dir.write("f", "0123456789");
  EXPECT_EQ(read_range(file, 3, 4), "3456");
  EXPECT_EQ(read_range(file, 0, 10), "0123456789");
  EXPECT_EQ(read_range(file, 10, 0), "");
}

TEST(PreadExact, SaysWhereTheFileEnds) {
  const TempDir dir;
  const auto file = dir.write("f", "0123456789");
  expect_error(ErrorKind::kBadFile, {"ends too early", "at least 11 bytes", "got 10 bytes"},
               [&] { read_range(file, 7, 4); });
  expect_error(ErrorKind::kBadFile, {"ends too early"}, [&] { read_range(file, UINT64_MAX, 4); });
  expect_error(ErrorKind::kBadFile, {"ends too early"}, [&] { read_range(file, uint64_t{1} << 63, 4); });
}

TEST(PreadExact, ReportsTheSystemsError) {
  std::byte one{};
  expect_error(ErrorKind::kIo, {"f: ", "could not read 1 bytes at byte 9", "Bad file descriptor"}, [&] {
    pread_exact(-1, {&one, 1}, 9, "f");
  });
}

TEST(PwriteAll, WritesARange) {
  const TempDir dir;
  const auto file = dir.write("f", "0123456789");
  const UniqueFd fd(::open(file.c_str(), O_WRONLY));
  pwrite_all(fd.get(), bytes_of("abc"), 4, file);
  pwrite_all(fd.get(), {}, 0, file);
  EXPECT_EQ(file_content(file), "0123abc789");
}

TEST(PwriteAll, AFullDiskIsALackNotAnIoFault) {
  const UniqueFd full(::open("/dev/full", O_WRONLY));
  ASSERT_TRUE(full);
  expect_error(ErrorKind::kNotEnough, {"/dev/full: ", "No space left on device", "free space"},
               [&] { pwrite_all(full.get(), bytes_of("abc"), 0, "/dev/full"); });
}

TEST(AtomicFile, HasNoNameUntilItIsWhole) {
  const TempDir dir;
  const auto file = dir / "out.bin";
  AtomicFile out(file);
  out.append("abc");
  out.append(bytes_of("de"));
  EXPECT_EQ(out.size_bytes(), 5u);
  EXPECT_FALSE(std::filesystem::exists(file));
  EXPECT_TRUE(std::filesystem::exists(dir / "out.bin.tmp"));
  out.finish();
  EXPECT_EQ(file_content(file), "abcde");
  EXPECT_FALSE(std::filesystem::exists(dir / "out.bin.tmp"));
}

TEST(AtomicFile, UnfinishedLeavesTheOldFileAndNoRest) {
  const TempDir dir;
  const auto file = dir.write("out.bin", "old");
  {
    AtomicFile out(file);
    out.append("new");
    AtomicFile moved = std::move(out);
    moved.append("er");
  }
  EXPECT_EQ(file_content(file), "old");
  EXPECT_FALSE(std::filesystem::exists(dir / "out.bin.tmp"));
}

TEST(AtomicFile, StartsAfreshOverAnOldTemporaryFile) {
  const TempDir dir;
  dir.write("out.bin.tmp", "rest of a killed process");
  write_file_atomically(dir / "out.bin", "x");
  EXPECT_EQ(file_content(dir / "out.bin"), "x");
}

TEST(AtomicFile, SaysWhereItCannotWrite) {
  const TempDir dir;
  expect_error(ErrorKind::kIo, {"gone/f.tmp", "could not create", "directory exists"},
               [&] { AtomicFile out(dir / "gone/f"); });
}

TEST(AtomicFile, AFailedRenameKeepsTheTargetAndLeavesNoRest) {
  const TempDir dir;
  std::filesystem::create_directories(dir / "taken/inside");
  expect_error(ErrorKind::kIo, {"taken.tmp", "could not rename"}, [&] { write_file_atomically(dir / "taken", "x"); });
  EXPECT_TRUE(std::filesystem::is_directory(dir / "taken/inside"));
  EXPECT_FALSE(std::filesystem::exists(dir / "taken.tmp"));
}

TEST(WriteFileAtomically, ReplacesTheContent) {
  const TempDir dir;
  const auto file = dir.write("f", "a long old content");
  write_file_atomically(file, "new");
  EXPECT_EQ(file_content(file), "new");
  write_file_atomically(file, "");
  EXPECT_EQ(file_content(file), "");
}

TEST(SyncDirectory, AMissingOneIsAnError) {
  const TempDir dir;
  EXPECT_NO_THROW(sync_directory(dir.path()));
  EXPECT_NO_THROW(sync_directory(""));  // the parent of a bare file name: the working directory
  expect_error(ErrorKind::kIo, {"nowhere"}, [&] { sync_directory(dir / "nowhere"); });
}

}  // namespace
}  // namespace moraine::quant
