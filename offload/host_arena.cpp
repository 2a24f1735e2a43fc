#include "offload/host_arena.h"

#include <fmt/format.h>
#include <sys/mman.h>

#include <limits>
#include <utility>

#include "quant/error.h"

namespace moraine::offload {
namespace {

quant::Error no_memory(uint64_t size_bytes) {
  return quant::Error(quant::ErrorKind::kNotEnough,
                      {.what = fmt::format("could not get {} bytes of memory for experts", size_bytes),
                       .action = "close other programs or choose a smaller --ram-budget"});
}

}  // namespace

std::byte* MappedMemory::take(uint64_t size_bytes) {
  const bool huge = huge_pages_ && size_bytes >= HostArena::kHugePageBytes;
  const uint64_t extra_bytes = huge ? HostArena::kHugePageBytes : 0;
  if (size_bytes > std::numeric_limits<size_t>::max() - extra_bytes) throw no_memory(size_bytes);
  void* mapped = ::mmap(nullptr, size_bytes + extra_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (mapped == MAP_FAILED) throw no_memory(size_bytes);
  auto* begin = static_cast<std::byte*>(mapped);
  if (!huge) return begin;
  // Keep the part that begins on a huge page's border.
  const uint64_t head_bytes = (extra_bytes - reinterpret_cast<uintptr_t>(begin) % extra_bytes) % extra_bytes;
  const uint64_t page_end_bytes = HostArena::slot_bytes_for(head_bytes + size_bytes);
  if (head_bytes > 0) ::munmap(begin, head_bytes);
  const uint64_t mapped_bytes = HostArena::slot_bytes_for(size_bytes + extra_bytes);
  if (page_end_bytes < mapped_bytes) ::munmap(begin + page_end_bytes, mapped_bytes - page_end_bytes);
  // Advice only: without huge pages everything works, with more TLB misses.
  ::madvise(begin + head_bytes, size_bytes, MADV_HUGEPAGE);
  return begin + head_bytes;
}

void MappedMemory::give_back(std::byte* memory, uint64_t size_bytes) noexcept {
  ::munmap(memory, size_bytes);
}

uint64_t HostArena::slot_bytes_for(uint64_t record_bytes) {
  MORAINE_CHECK(record_bytes <= std::numeric_limits<uint64_t>::max() - kSlotAlignmentBytes);
  return (record_bytes + kSlotAlignmentBytes - 1) / kSlotAlignmentBytes * kSlotAlignmentBytes;
}

HostArena::HostArena(uint64_t record_bytes, int slot_count, std::shared_ptr<HostMemory> memory)
    : memory_(std::move(memory)), slot_bytes_(slot_bytes_for(record_bytes)), slot_count_(slot_count) {
  MORAINE_CHECK(slot_count >= 0);
  if (slot_count == 0 || slot_bytes_ == 0) return;
  if (slot_bytes_ > std::numeric_limits<uint64_t>::max() / static_cast<uint64_t>(slot_count)) {
    throw no_memory(std::numeric_limits<uint64_t>::max());
  }
  if (memory_ == nullptr) memory_ = std::make_shared<MappedMemory>(slot_bytes_ >= kHugePageBytes);
  begin_ = memory_->take(size_bytes());
}

HostArena::~HostArena() {
  if (begin_ != nullptr) memory_->give_back(begin_, size_bytes());
}

std::span<std::byte> HostArena::slot(int index) const {
  MORAINE_CHECK(index >= 0 && index < slot_count_);
  return {begin_ + static_cast<uint64_t>(index) * slot_bytes_, slot_bytes_};
}

}  // namespace moraine::offload
