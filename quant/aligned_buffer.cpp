#include "quant/aligned_buffer.h"

#include <fmt/format.h>

#include <cstdlib>
#include <cstring>

#include "quant/error.h"
#include "quant/huge_pages.h"

namespace moraine::quant {

AlignedBuffer::AlignedBuffer(uint64_t size_bytes) {
  if (size_bytes == 0) return;
  std::byte* memory = nullptr;
  if (size_bytes >= kHugePageBytes) {
    memory = map_memory(size_bytes);
  } else {
    memory = static_cast<std::byte*>(std::aligned_alloc(kAlignment, mapped_bytes(size_bytes)));
    if (memory != nullptr) std::memset(memory, 0, size_bytes);
  }
  if (memory == nullptr) {
    throw Error(ErrorKind::kNotEnough, {.what = fmt::format("could not allocate {} bytes of memory", size_bytes),
                                        .action = "close other programs or choose a smaller --ram-budget"});
  }
  bytes_ = std::unique_ptr<std::byte[], Free>(memory, Free{size_bytes});
  size_bytes_ = size_bytes;
}

void AlignedBuffer::Free::operator()(std::byte* bytes) const {
  if (size_bytes >= kHugePageBytes) {
    unmap_memory(bytes, size_bytes);
  } else {
    std::free(bytes);
  }
}

}  // namespace moraine::quant
