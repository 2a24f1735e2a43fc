#include "offload/host_arena.h"

#include <gtest/gtest.h>
#include <sys/mman.h>

#include <cstring>
#include <limits>
#include <vector>

#include "quant/error.h"
#include "quant/huge_pages.h"

namespace moraine::offload {
namespace {

uintptr_t address(std::span<std::byte> bytes) {
  return reinterpret_cast<uintptr_t>(bytes.data());
}

TEST(HostArena, SlotsAreAlignedAndApart) {
  const HostArena arena(5000, 3);
  EXPECT_EQ(arena.slot_bytes(), 8192u);
  EXPECT_EQ(arena.size_bytes(), 3 * 8192u);
  for (int slot = 0; slot < 3; ++slot) {
    EXPECT_EQ(address(arena.slot(slot)) % 4096, 0u);
    std::memset(arena.slot(slot).data(), slot + 1, arena.slot_bytes());
  }
  for (int slot = 0; slot < 3; ++slot) {
    EXPECT_EQ(arena.slot(slot).front(), static_cast<std::byte>(slot + 1));
    EXPECT_EQ(arena.slot(slot).back(), static_cast<std::byte>(slot + 1));
  }
}

TEST(HostArena, BigSlotsBeginOnAHugePage) {
  const HostArena arena((2u << 20) + 4096, 3);
  EXPECT_EQ(address(arena.slot(0)) % quant::kHugePageBytes, 0u);
  std::memset(arena.slot(2).data(), 1, arena.slot_bytes());
  EXPECT_EQ(arena.slot(2).back(), std::byte{1});
}

TEST(HostArena, MemoryIsTouchedOnlyWhenUsed) {
  const HostArena arena(4096, 64);
  arena.slot(5)[0] = std::byte{1};
  std::vector<unsigned char> resident(64);
  ASSERT_EQ(::mincore(arena.slot(0).data(), arena.size_bytes(), resident.data()), 0);
  for (size_t page = 0; page < resident.size(); ++page) EXPECT_EQ(resident[page] & 1, page == 5 ? 1 : 0) << page;
}

TEST(HostArena, AnEmptyArenaTakesNothing) {
  EXPECT_EQ(HostArena(4096, 0).size_bytes(), 0u);
  EXPECT_EQ(HostArena(0, 5).size_bytes(), 0u);
}

TEST(HostArena, RefusesWhatCannotBeHad) {
  for (const uint64_t record_bytes : {uint64_t{1} << 50, uint64_t{1} << 62}) {
    try {
      const HostArena arena(record_bytes, 1000);
      FAIL() << "accepted " << record_bytes;
    } catch (const quant::Error& error) {
      EXPECT_EQ(error.kind(), quant::ErrorKind::kNotEnough);
    }
  }
}

/// Counts what is taken and given back.
class CountingMemory : public HostMemory {
 public:
  std::byte* take(uint64_t size_bytes) override {
    taken_bytes += size_bytes;
    return inner_.take(size_bytes);
  }
  void give_back(std::byte* memory, uint64_t size_bytes) noexcept override {
    given_back_bytes += size_bytes;
    inner_.give_back(memory, size_bytes);
  }
  uint64_t taken_bytes = 0;
  uint64_t given_back_bytes = 0;

 private:
  MappedMemory inner_;
};

TEST(HostArena, UsesTheMemoryHandedIn) {
  const auto memory = std::make_shared<CountingMemory>();
  {
    const HostArena arena(4096, 4, memory);
    EXPECT_EQ(memory->taken_bytes, 4 * 4096u);
    EXPECT_EQ(memory->given_back_bytes, 0u);
  }
  EXPECT_EQ(memory->given_back_bytes, 4 * 4096u);
}

}  // namespace
}  // namespace moraine::offload
