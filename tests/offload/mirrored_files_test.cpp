#include "offload/mirrored_files.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <cstdlib>
#include <functional>
#include <string>

#include "quant/error.h"
#include "support/temp_dir.h"

namespace moraine::offload {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

/// A directory on another file system than that of temporary files, where there is one.
class InMemory {
 public:
  InMemory() {
    if (mkdtemp(path_.data()) == nullptr) path_ = "/dev/shm/absent";
  }
  ~InMemory() {
    std::error_code ignored;
    fs::remove_all(path_, ignored);
  }
  InMemory(const InMemory&) = delete;
  InMemory& operator=(const InMemory&) = delete;

  fs::path path() const { return path_; }

 private:
  std::string path_ = "/dev/shm/moraine-test-XXXXXX";
};

class MirroredFilesTest : public ::testing::Test {
 protected:
  static std::string content(char letter) { return std::string(2u << 20, letter); }

  void expect_refused(const std::vector<fs::path>& mirrors, const std::vector<std::string>& parts,
                      quant::ErrorKind kind = quant::ErrorKind::kBadFile) const {
    try {
      find_mirrors(files_, mirrors);
      FAIL() << "taken";
    } catch (const quant::Error& error) {
      EXPECT_EQ(error.kind(), kind);
      for (const std::string& part : parts) EXPECT_THAT(error.what(), HasSubstr(part));
    }
  }

  testing::TempDir dir_, mirror_;
  std::vector<fs::path> files_ = {dir_.write("a", content('a')), dir_.write("b", content('b'))};
};

TEST_F(MirroredFilesTest, KnowsWhereEachFileCanBeRead) {
  const testing::TempDir other;
  mirror_.write("b", content('b'));
  mirror_.write("unrelated", "x");
  other.write("a", content('a'));
  other.write("b", content('b'));
  const MirroredFiles found = find_mirrors(files_, std::vector{mirror_.path(), other.path()});
  ASSERT_EQ(found.drives.size(), 3u);
  EXPECT_EQ(found.drives[0], dir_.path());
  ASSERT_EQ(found.copies.size(), 2u);
  ASSERT_EQ(found.copies[0].size(), 2u) << "a mirror may hold some of the files";
  EXPECT_EQ(found.copies[0][1].drive, 2);
  EXPECT_EQ(found.paths[static_cast<size_t>(found.copies[0][1].file)], other / "a");
  ASSERT_EQ(found.copies[1].size(), 3u);
  EXPECT_EQ(found.paths[static_cast<size_t>(found.copies[1][0].file)], files_[1]);
  EXPECT_EQ(found.shared_with, (std::vector<int>{0, 0, 0})) << "all in one temporary directory";
}

TEST_F(MirroredFilesTest, AnotherFileSystemIsAnotherDrive) {
  const InMemory first, second;
  struct stat here = {}, there = {};
  if (::stat(dir_.path().c_str(), &here) != 0 || ::stat(first.path().c_str(), &there) != 0 ||
      here.st_dev == there.st_dev) {
    GTEST_SKIP() << "only one file system here";
  }
  const std::vector mirrors = {first.path(), mirror_.path(), second.path()};
  for (const fs::path& mirror : mirrors) fs::copy(files_[0], mirror);
  EXPECT_EQ(find_mirrors(files_, mirrors).shared_with, (std::vector<int>{0, 1, 0, 1}));
}

TEST_F(MirroredFilesTest, AnotherSizeIsRefused) {
  mirror_.write("a", content('a'));
  mirror_.write("b", content('b') + "b");
  expect_refused({mirror_.path()}, {(mirror_ / "b").string(), "2097152 bytes", "2097153 bytes"});
}

TEST_F(MirroredFilesTest, OtherBytesAreRefusedWithTheirPlace) {
  for (const size_t place : {size_t{0}, size_t{1u << 20}, size_t{(2u << 20) - 1}}) {
    std::string changed = content('b');
    changed[place] = '!';
    mirror_.write("b", changed);
    expect_refused({mirror_.path()}, {(mirror_ / "b").string(), std::to_string(place), files_[1].string()});
  }
}

TEST_F(MirroredFilesTest, AMirrorOfNothingIsRefused) {
  expect_refused({mirror_.path()}, {mirror_.path().string(), "none of the model's files"});
  expect_refused({mirror_ / "absent"}, {"absent", "none of the model's files"});
}

TEST_F(MirroredFilesTest, TheModelItselfIsNoMirror) {
  expect_refused({dir_.path()}, {files_[0].string(), "own file"});
  fs::create_symlink(files_[1], mirror_ / "b");
  expect_refused({mirror_.path()}, {(mirror_ / "b").string(), "own file"});
}

TEST_F(MirroredFilesTest, SomethingThatIsNoFileIsRefused) {
  fs::create_directory(mirror_ / "a");
  expect_refused({mirror_.path()}, {(mirror_ / "a").string()});
}

TEST_F(MirroredFilesTest, TooManyAndUselessMirrorsAreRefused) {
  expect_refused(std::vector<fs::path>(16, mirror_.path()), {"at most 15"}, quant::ErrorKind::kUsage);
  EXPECT_THROW(find_mirrors({}, std::vector{mirror_.path()}), quant::Error);
}

TEST_F(MirroredFilesTest, SmallAndEmptyFilesAreCompared) {
  const std::vector<fs::path> files = {dir_.write("small", "xyz"), dir_.write("empty", "")};
  mirror_.write("empty", "");
  mirror_.write("small", "xyz");
  EXPECT_EQ(find_mirrors(files, std::vector{mirror_.path()}).copies[0].size(), 2u);
}

}  // namespace
}  // namespace moraine::offload
