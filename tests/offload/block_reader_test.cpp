// What every BlockReader promises, asked of both real ones; and what each of them alone does.
#include "offload/block_reader.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <string>
#include <thread>

#include "offload/open_reader.h"
#include "offload/pread_reader.h"
#include "offload/uring_reader.h"
#include "quant/aligned_buffer.h"
#include "support/temp_dir.h"

namespace moraine::offload {
namespace {

using ::testing::HasSubstr;

std::string pattern(size_t size, unsigned seed) {
  std::string bytes(size, '\0');
  for (char& byte : bytes) {
    seed = seed * 1664525u + 1013904223u;
    byte = static_cast<char>(seed >> 24);
  }
  return bytes;
}

bool same(std::span<const std::byte> bytes, std::string_view expected) {
  return std::equal(bytes.begin(), bytes.end(), expected.begin(), expected.end(),
                    [](std::byte a, char b) { return a == static_cast<std::byte>(b); });
}

std::vector<ReadCompletion> wait_for(BlockReader& reader, size_t count) {
  std::vector<ReadCompletion> completions;
  while (completions.size() < count) reader.wait(completions);
  std::sort(completions.begin(), completions.end(), [](const auto& a, const auto& b) { return a.tag < b.tag; });
  return completions;
}

class BlockReaderTest : public ::testing::TestWithParam<ReaderKind> {
 protected:
  void SetUp() override {
    if (GetParam() == ReaderKind::kUring && UringReader::refusal() != 0) {
      GTEST_SKIP() << "io_uring is refused here: " << std::strerror(UringReader::refusal());
    }
    reader_ = open_reader(GetParam(), paths_, {});
  }

  testing::TempDir dir_;
  const std::string big_ = pattern((3u << 20) + 77, 1);
  const std::string small_ = pattern(1000, 2);
  const std::vector<std::filesystem::path> paths_ = {dir_.write("big", big_), dir_.write("small", small_)};
  std::unique_ptr<BlockReader> reader_;
};

TEST_P(BlockReaderTest, ReadsManyRangesOfSeveralFilesAtOnce) {
  quant::AlignedBuffer target(8u << 20);
  std::vector<ReadRequest> requests;
  uint64_t position = 0;
  const auto want = [&](int file, uint64_t offset, uint64_t size) {
    requests.push_back({.tag = requests.size(),
                        .file = file,
                        .offset = offset,
                        .destination = target.span().subspan(position, size),
                        .urgent = requests.size() % 2 == 0});
    position += size;
  };
  want(0, 0, 2u << 20);              // aligned, several pieces
  want(0, 4096, (1u << 20) + 5000);  // aligned start, odd end
  want(1, 3, 990);                   // inside one page at the end of its file
  want(0, (3u << 20) + 70, 7);       // the file's last bytes
  for (uint64_t i = 0; i < 200; ++i) want(0, i * 12345, 2000 + i);
  reader_->submit(requests);
  const std::vector<ReadCompletion> completions = wait_for(*reader_, requests.size());
  ASSERT_EQ(completions.size(), requests.size());
  for (size_t i = 0; i < requests.size(); ++i) {
    EXPECT_EQ(completions[i].tag, i);
    EXPECT_FALSE(completions[i].failure);
    const std::string& content = requests[i].file == 0 ? big_ : small_;
    EXPECT_TRUE(same(requests[i].destination,
                     std::string_view(content).substr(requests[i].offset, requests[i].destination.size())))
        << i;
  }
  EXPECT_EQ(completions[0].bytes_read, 2u << 20);
}

TEST_P(BlockReaderTest, SaysWhereATruncatedFileEnds) {
  std::filesystem::resize_file(paths_[0], 5000);
  quant::AlignedBuffer target(16384);
  reader_->submit(
      std::vector<ReadRequest>{{.tag = 4, .file = 0, .offset = 4096, .destination = target.span().first(8192)},
                               {.tag = 5, .file = 1, .offset = 0, .destination = target.span().subspan(8192, 9)}});
  const std::vector<ReadCompletion> completions = wait_for(*reader_, 2);
  ASSERT_TRUE(completions[0].failure);
  EXPECT_EQ(completions[0].failure->kind, quant::ErrorKind::kBadFile);
  EXPECT_EQ(completions[0].failure->detail.file, paths_[0]);
  EXPECT_EQ(completions[0].failure->detail.got, "5000");
  EXPECT_FALSE(completions[1].failure) << "others are not touched";
}

TEST_P(BlockReaderTest, WakeEndsAWait) {
  std::vector<ReadCompletion> completions;
  reader_->wake();
  reader_->wait(completions);  // woken before it began
  std::thread waker([this] { reader_->wake(); });
  reader_->wait(completions);
  waker.join();
  EXPECT_TRUE(completions.empty());
  // It reads as before.
  quant::AlignedBuffer target(4096);
  reader_->submit(std::vector<ReadRequest>{{.file = 1, .offset = 0, .destination = target.span().first(1000)}});
  EXPECT_FALSE(wait_for(*reader_, 1)[0].failure);
  EXPECT_TRUE(same(target.span().first(1000), small_));
}

TEST_P(BlockReaderTest, MayGoWithReadsInFlight) {
  quant::AlignedBuffer target(3u << 20);
  reader_->submit(std::vector<ReadRequest>{{.file = 0, .offset = 0, .destination = target.span()}});
  reader_.reset();
  // Whoever owned the destination may use it now: a read still under way would race with this (asan, tsan).
  std::fill(target.span().begin(), target.span().end(), std::byte{1});
  EXPECT_EQ(std::count(target.span().begin(), target.span().end(), std::byte{1}), 3 << 20);
}

TEST_P(BlockReaderTest, NamesTheFileThatIsMissing) {
  const std::vector<std::filesystem::path> paths = {paths_[0], dir_ / "absent"};
  try {
    open_reader(GetParam(), paths, {});
    FAIL() << "opened";
  } catch (const quant::Error& error) {
    EXPECT_THAT(error.what(), HasSubstr("absent"));
  }
}

TEST_P(BlockReaderTest, ReadsWithoutDirectAccessToo) {
  // /proc files take no O_DIRECT and have no size; /dev/shm is memory.
  const std::filesystem::path shm = "/dev/shm";
  if (!std::filesystem::is_directory(shm)) GTEST_SKIP() << "no /dev/shm here";
  const std::filesystem::path file = shm / ("moraine-test-" + std::to_string(::getpid()));
  std::filesystem::copy_file(paths_[0], file, std::filesystem::copy_options::overwrite_existing);
  quant::AlignedBuffer target(1u << 20);
  const auto reader = open_reader(GetParam(), std::vector{file}, {});
  reader->submit(std::vector<ReadRequest>{{.file = 0, .offset = 12345, .destination = target.span()}});
  const std::vector<ReadCompletion> completions = wait_for(*reader, 1);
  std::filesystem::remove(file);
  EXPECT_FALSE(completions[0].failure);
  EXPECT_TRUE(same(target.span(), std::string_view(big_).substr(12345, 1u << 20)));
}

INSTANTIATE_TEST_SUITE_P(Both, BlockReaderTest, ::testing::Values(ReaderKind::kUring, ReaderKind::kPread),
                         [](const auto& kind) { return kind.param == ReaderKind::kUring ? "Uring" : "Pread"; });

TEST(PreadReader, LivesWithShortAndInterruptedReads) {
  const testing::TempDir dir;
  const std::string content = pattern(300'001, 3);
  std::atomic<int> calls = 0;
  const auto moody_pread = [&calls](int fd, void* target, size_t size, off_t offset) -> ssize_t {
    const int call = calls++;
    if (call % 4 == 0) {
      errno = call % 8 == 0 ? EINTR : EAGAIN;
      return -1;
    }
    // A direct read that comes short ends on a sector of the device, or anywhere at all.
    const size_t part = call % 4 == 1 ? std::min<size_t>(size, 8192) : size;
    return ::pread(fd, target, part, offset);
  };
  PreadReader reader(std::vector{dir.write("file", content)}, {}, moody_pread);
  quant::AlignedBuffer target(300'000);
  reader.submit(std::vector<ReadRequest>{{.file = 0, .offset = 1, .destination = target.span()}});
  EXPECT_FALSE(wait_for(reader, 1)[0].failure);
  EXPECT_TRUE(same(target.span(), std::string_view(content).substr(1)));
}

TEST(PreadReader, ReportsWhatTheSystemSays) {
  const testing::TempDir dir;
  const auto broken_pread = [](int, void*, size_t, off_t) -> ssize_t {
    errno = EIO;
    return -1;
  };
  PreadReader reader(std::vector{dir.write("file", pattern(5000, 4))}, {}, broken_pread);
  quant::AlignedBuffer target(5000);
  reader.submit(std::vector<ReadRequest>{{.file = 0, .offset = 0, .destination = target.span()}});
  const std::vector<ReadCompletion> completions = wait_for(reader, 1);
  ASSERT_TRUE(completions[0].failure);
  EXPECT_EQ(completions[0].failure->kind, quant::ErrorKind::kIo);
  EXPECT_THAT(completions[0].failure->detail.what, HasSubstr("Input/output error"));
}

TEST(OpenReader, FallsBackToPreadWithOneLine) {
  const testing::TempDir dir;
  const std::vector<std::filesystem::path> paths = {dir.write("file", "x")};
  for (const int refusal : {ENOSYS, EPERM, EACCES, ENOMEM}) {
    std::vector<std::string> lines;
    const auto reader = open_reader(
        ReaderKind::kAuto, paths, [&lines](const std::string& line) { lines.push_back(line); }, {}, refusal);
    EXPECT_STREQ(reader->name(), "pread");
    ASSERT_EQ(lines.size(), 1u);
    EXPECT_THAT(lines[0], HasSubstr("pread"));
  }
}

TEST(OpenReader, RefusesUringWhereItWasAskedForByName) {
  const testing::TempDir dir;
  try {
    open_reader(ReaderKind::kUring, std::vector{dir.write("file", "x")}, {}, {}, EPERM);
    FAIL() << "opened";
  } catch (const quant::Error& error) {
    EXPECT_EQ(error.kind(), quant::ErrorKind::kIo);
    EXPECT_THAT(error.what(), HasSubstr("io_uring_disabled"));
  }
}

}  // namespace
}  // namespace moraine::offload
