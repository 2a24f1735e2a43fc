#include "quant/aligned_buffer.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <limits>
#include <string>
#include <utility>

#include "support/expect_error.h"

// The sanitizers' allocators end the process on an impossible size unless told to behave like malloc.
extern "C" const char* __asan_default_options() {
  return "allocator_may_return_null=1";
}
extern "C" const char* __tsan_default_options() {
  return "allocator_may_return_null=1";
}

namespace moraine::quant {
namespace {

TEST(AlignedBuffer, IsAlignedAndZeroedAtOddSizes) {
  // The last ones are mapped, in huge pages.
  for (const uint64_t size_bytes : {1u, 7u, 4095u, 4096u, 4097u, 100'000u, 2u << 20, (4u << 20) + 1}) {
    AlignedBuffer buffer(size_bytes);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(buffer.data()) % AlignedBuffer::kAlignment, 0u) << size_bytes;
    EXPECT_EQ(buffer.size(), size_bytes);
    const auto bytes = buffer.span();
    EXPECT_EQ(bytes.size(), size_bytes);
    EXPECT_TRUE(std::all_of(bytes.begin(), bytes.end(), [](std::byte b) { return b == std::byte{0}; }));
  }
}

TEST(AlignedBuffer, EmptyHoldsNothing) {
  EXPECT_EQ(AlignedBuffer().size(), 0u);
  EXPECT_EQ(AlignedBuffer(0).data(), nullptr);
}

TEST(AlignedBuffer, MovesItsBytes) {
  AlignedBuffer first(16);
  first.data()[3] = std::byte{9};
  const AlignedBuffer second = std::move(first);
  EXPECT_EQ(second.span()[3], std::byte{9});
  EXPECT_EQ(second.size(), 16u);
}

TEST(AlignedBuffer, ImpossibleSizesAreAnErrorThatNamesThem) {
  // Rounding up to the alignment must not wrap around to a small size.
  for (const uint64_t size_bytes :
       {std::numeric_limits<uint64_t>::max(), std::numeric_limits<uint64_t>::max() - 4096, uint64_t{1} << 62}) {
    testing::expect_error(ErrorKind::kNotEnough, {"could not allocate", std::to_string(size_bytes)},
                          [&] { AlignedBuffer buffer(size_bytes); });
  }
}

}  // namespace
}  // namespace moraine::quant
