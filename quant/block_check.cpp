#include "quant/block_check.h"

#include <cstring>

#include "quant/error.h"
#include "quant/visit_block_format.h"

namespace moraine::quant {

int64_t first_bad_block(DType type, std::span<const std::byte> blocks) {
  const auto search = [&]<typename Block>(Block block) -> int64_t {
    MORAINE_CHECK(blocks.size() % sizeof(Block) == 0);
    for (size_t at = 0; at < blocks.size(); at += sizeof(Block)) {
      std::memcpy(&block, blocks.data() + at, sizeof(Block));
      if (!std::isfinite(witness(block))) return static_cast<int64_t>(at);
    }
    return -1;
  };
  return visit_block_format(type, search, []() -> int64_t {
    MORAINE_CHECK(!"a block format");
    return -1;
  });
}

}  // namespace moraine::quant
