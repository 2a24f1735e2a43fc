#include "quant/aligned_buffer.h"

#include <fmt/format.h>

#include <cstring>
#include <limits>

#include "quant/error.h"

namespace moraine::quant {

AlignedBuffer::AlignedBuffer(uint64_t size_bytes) {
  if (size_bytes == 0) return;
  const bool fits = size_bytes <= std::numeric_limits<size_t>::max() - kAlignment;
  const size_t rounded = fits ? (size_bytes + kAlignment - 1) / kAlignment * kAlignment : 0;
  void* memory = fits ? std::aligned_alloc(kAlignment, rounded) : nullptr;
  if (memory == nullptr) {
    throw Error(ErrorKind::kNotEnough, {.what = fmt::format("could not allocate {} bytes of memory", size_bytes),
                                        .action = "close other programs or choose a smaller --ram-budget"});
  }
  std::memset(memory, 0, rounded);
  bytes_.reset(static_cast<std::byte*>(memory));
  size_bytes_ = size_bytes;
}

}  // namespace moraine::quant
