#include "quant/huge_pages.h"

#include <sys/mman.h>

#include <limits>

namespace moraine::quant {

uint64_t mapped_bytes(uint64_t size_bytes) {
  constexpr uint64_t kSmallPageBytes = 4096;
  const uint64_t page_bytes = size_bytes < kHugePageBytes ? kSmallPageBytes : kHugePageBytes;
  if (size_bytes > std::numeric_limits<uint64_t>::max() - page_bytes) return std::numeric_limits<uint64_t>::max();
  return (size_bytes + page_bytes - 1) / page_bytes * page_bytes;
}

std::byte* map_memory(uint64_t size_bytes) noexcept {
  const bool huge = size_bytes >= kHugePageBytes;
  const uint64_t wanted_bytes = mapped_bytes(size_bytes), spare_bytes = huge ? kHugePageBytes : 0;
  if (wanted_bytes == 0 || wanted_bytes > std::numeric_limits<size_t>::max() - spare_bytes) return nullptr;
  void* mapped =
      ::mmap(nullptr, wanted_bytes + spare_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (mapped == MAP_FAILED) return nullptr;
  auto* begin = static_cast<std::byte*>(mapped);
  if (!huge) return begin;
  // Keep the part that begins on a huge page's border.
  const uint64_t head_bytes = (kHugePageBytes - reinterpret_cast<uintptr_t>(begin) % kHugePageBytes) % kHugePageBytes;
  if (head_bytes > 0) ::munmap(begin, head_bytes);
  begin += head_bytes;
  if (head_bytes < spare_bytes) ::munmap(begin + wanted_bytes, spare_bytes - head_bytes);
  // Advice only: without huge pages everything works, with more TLB misses.
  ::madvise(begin, wanted_bytes, MADV_HUGEPAGE);
  return begin;
}

void unmap_memory(std::byte* memory, uint64_t size_bytes) noexcept {
  ::munmap(memory, mapped_bytes(size_bytes));
}

}  // namespace moraine::quant
