#include "offload/hot_set.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>

#include <csignal>
#include <fstream>
#include <iterator>

#include "quant/error.h"
#include "support/memory_source.h"
#include "support/temp_dir.h"

namespace moraine::offload {
namespace {

using ::testing::HasSubstr;

const std::vector<ExpertId> kHottest = {{5, 1}, {3, 7}, {4, 0}};

class HotSetTest : public ::testing::Test {
 protected:
  std::vector<ExpertId> load(uint64_t key) {
    lines_.clear();
    return load_hot_set(file_, key, [this](const std::string& line) { lines_.push_back(line); });
  }
  std::string bytes() const {
    std::ifstream in(file_, std::ios::binary);
    return {std::istreambuf_iterator<char>(in), {}};
  }
  void write(const std::string& bytes) const { std::ofstream(file_, std::ios::binary | std::ios::trunc) << bytes; }

  testing::TempDir dir_;
  const std::filesystem::path file_ = dir_ / "cache" / "hot";
  std::vector<std::string> lines_;
};

TEST_F(HotSetTest, ComesBackAsItWas) {
  EXPECT_TRUE(load(1).empty());
  EXPECT_TRUE(lines_.empty()) << "the first start is nothing to tell";
  save_hot_set(file_, 1, kHottest);
  EXPECT_EQ(load(1), kHottest);
  EXPECT_TRUE(lines_.empty());
  save_hot_set(file_, 1, {});
  EXPECT_TRUE(load(1).empty());
}

TEST_F(HotSetTest, OfAnotherModelIsIgnoredInALine) {
  save_hot_set(file_, 1, kHottest);
  EXPECT_TRUE(load(2).empty());
  ASSERT_EQ(lines_.size(), 1u);
  EXPECT_THAT(lines_[0], HasSubstr("another model"));
}

TEST_F(HotSetTest, EveryWrongByteAndEveryCutIsFound) {
  save_hot_set(file_, 1, kHottest);
  const std::string good = bytes();
  for (size_t i = 0; i < good.size(); ++i) {
    std::string bad = good;
    bad[i] = static_cast<char>(bad[i] ^ 0x20);
    write(bad);
    EXPECT_TRUE(load(1).empty()) << i;
    EXPECT_EQ(lines_.size(), 1u) << i;
    write(good.substr(0, i));
    EXPECT_TRUE(load(1).empty()) << i;
    EXPECT_EQ(lines_.size(), 1u) << i;
  }
}

TEST_F(HotSetTest, ADirectoryInItsPlaceIsIgnoredInALine) {
  std::filesystem::create_directories(file_);
  EXPECT_TRUE(load(1).empty());
  EXPECT_EQ(lines_.size(), 1u);
}

TEST_F(HotSetTest, AFullDiskLeavesTheOldOne) {
  save_hot_set(file_, 1, kHottest);
  // A limit on file sizes stands for the full disk: both stop a write in its middle.
  struct rlimit before = {};
  ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &before), 0);
  const auto handler = std::signal(SIGXFSZ, SIG_IGN);
  const struct rlimit tight = {.rlim_cur = 4096, .rlim_max = before.rlim_max};
  ::setrlimit(RLIMIT_FSIZE, &tight);
  std::vector<ExpertId> many;
  for (int32_t expert = 0; expert < 5000; ++expert) many.push_back({3, expert});
  EXPECT_THROW(save_hot_set(file_, 1, many), quant::Error);
  ::setrlimit(RLIMIT_FSIZE, &before);
  std::signal(SIGXFSZ, handler);
  EXPECT_EQ(load(1), kHottest);
}

TEST_F(HotSetTest, WhatAKilledWriterLeftIsNoHindrance) {
  save_hot_set(file_, 1, kHottest);
  std::ofstream(file_.string() + ".tmp") << "half of";
  EXPECT_EQ(load(1), kHottest);
  save_hot_set(file_, 1, std::vector<ExpertId>{{9, 9}});
  EXPECT_EQ(load(1), (std::vector<ExpertId>{{9, 9}}));
}

TEST_F(HotSetTest, NoPlaceToWriteIsAnError) {
  EXPECT_THROW(save_hot_set("/dev/null/cache/hot", 1, kHottest), quant::Error);
}

TEST_F(HotSetTest, TheKeyTellsModelsApart) {
  const testing::MemorySource small({.layers = 1}, dir_.path());
  const uint64_t key = hot_set_key(small);
  EXPECT_EQ(hot_set_key(small), key);
  const testing::MemorySource larger({.layers = 2}, dir_.path());
  EXPECT_NE(hot_set_key(larger), key);
  std::filesystem::last_write_time(larger.files()[0], std::filesystem::file_time_type{});
  EXPECT_NE(hot_set_key(small), key) << "the file was written anew";
}

}  // namespace
}  // namespace moraine::offload
