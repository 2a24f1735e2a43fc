#include "quant/huge_pages.h"

#include <gtest/gtest.h>
#include <sys/mman.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <fstream>
#include <limits>
#include <span>
#include <string>

namespace moraine::quant {
namespace {

TEST(HugePages, SizesAreRoundedToWholePages) {
  EXPECT_EQ(mapped_bytes(0), 0u);
  EXPECT_EQ(mapped_bytes(1), 4096u);
  EXPECT_EQ(mapped_bytes(4096), 4096u);
  EXPECT_EQ(mapped_bytes(kHugePageBytes - 4096), kHugePageBytes - 4096);
  EXPECT_EQ(mapped_bytes(kHugePageBytes), kHugePageBytes);
  EXPECT_EQ(mapped_bytes(kHugePageBytes + 1), 2 * kHugePageBytes);
  EXPECT_EQ(mapped_bytes(std::numeric_limits<uint64_t>::max() - 1), std::numeric_limits<uint64_t>::max());
}

TEST(HugePages, MemoryIsZeroedUsableToTheLastByteAndOnItsBorder) {
  for (const uint64_t size_bytes : {uint64_t{1}, uint64_t{4097}, kHugePageBytes - 1, kHugePageBytes, kHugePageBytes + 1,
                                    5 * kHugePageBytes - 4096}) {
    std::byte* memory = map_memory(size_bytes);
    ASSERT_NE(memory, nullptr);
    const uint64_t border = size_bytes < kHugePageBytes ? 4096 : kHugePageBytes;
    EXPECT_EQ(reinterpret_cast<uintptr_t>(memory) % border, 0u) << size_bytes;
    const std::span<std::byte> bytes(memory, mapped_bytes(size_bytes));
    EXPECT_TRUE(std::all_of(bytes.begin(), bytes.end(), [](std::byte b) { return b == std::byte{0}; })) << size_bytes;
    std::fill(bytes.begin(), bytes.end(), std::byte{7});
    unmap_memory(memory, size_bytes);
    // Nothing of it is left: a page that is still mapped would be found.
    unsigned char resident = 0;
    EXPECT_NE(::mincore(memory, 4096, &resident), 0) << size_bytes;
    EXPECT_NE(::mincore(memory + bytes.size() - 4096, 4096, &resident), 0) << size_bytes;
  }
}

TEST(HugePages, AsksForHugePagesFrom2MiBOn) {
  std::ifstream setting("/sys/kernel/mm/transparent_hugepage/enabled");
  std::string words;
  std::getline(setting, words);
  if (words.empty() || words.find("[never]") != std::string::npos) GTEST_SKIP() << "this system has no huge pages";
  const auto flags_of = [](const std::byte* memory) {
    std::ifstream maps("/proc/self/smaps");
    std::string line;
    uintptr_t begin = 0, end = 0;
    bool inside = false;
    while (std::getline(maps, line)) {
      if (std::sscanf(line.c_str(), "%lx-%lx ", &begin, &end) == 2) {
        inside = begin <= reinterpret_cast<uintptr_t>(memory) && reinterpret_cast<uintptr_t>(memory) < end;
      }
      if (inside && line.starts_with("VmFlags:")) return line + " ";
    }
    return std::string();
  };
  for (const uint64_t size_bytes : {kHugePageBytes / 2, 2 * kHugePageBytes + 1}) {
    std::byte* memory = map_memory(size_bytes);
    ASSERT_NE(memory, nullptr);
    EXPECT_EQ(flags_of(memory).find(" hg ") != std::string::npos, size_bytes >= kHugePageBytes) << size_bytes;
    unmap_memory(memory, size_bytes);
  }
}

TEST(HugePages, WhatCannotBeHadIsNull) {
  for (const uint64_t size_bytes :
       {uint64_t{0}, uint64_t{1} << 62, std::numeric_limits<uint64_t>::max() - kHugePageBytes,
        std::numeric_limits<uint64_t>::max()}) {
    EXPECT_EQ(map_memory(size_bytes), nullptr) << size_bytes;
  }
}

}  // namespace
}  // namespace moraine::quant
