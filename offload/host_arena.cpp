#include "offload/host_arena.h"

#include <fmt/format.h>

#include <limits>
#include <utility>

#include "quant/error.h"
#include "quant/huge_pages.h"

namespace moraine::offload {
namespace {

quant::Error no_memory(uint64_t size_bytes) {
  return quant::Error(quant::ErrorKind::kNotEnough,
                      {.what = fmt::format("could not get {} bytes of memory for experts", size_bytes),
                       .action = "close other programs or choose a smaller --ram-budget"});
}

}  // namespace

std::byte* MappedMemory::take(uint64_t size_bytes) {
  std::byte* memory = quant::map_memory(size_bytes);
  if (memory == nullptr) throw no_memory(size_bytes);
  return memory;
}

void MappedMemory::give_back(std::byte* memory, uint64_t size_bytes) noexcept {
  quant::unmap_memory(memory, size_bytes);
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
  if (memory_ == nullptr) memory_ = std::make_shared<MappedMemory>();
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
