#include "quant/checksum.h"

#include <fmt/format.h>

#include "quant/error.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

namespace moraine::quant {

struct ChecksumStream::State {
  XXH3_state_t xxh;
};

uint64_t checksum(std::span<const std::byte> bytes) {
  return XXH3_64bits(bytes.data(), bytes.size());
}

ChecksumStream::ChecksumStream() : state_(std::make_unique<State>()) {
  MORAINE_CHECK(XXH3_64bits_reset(&state_->xxh) == XXH_OK);
}
ChecksumStream::~ChecksumStream() = default;
ChecksumStream::ChecksumStream(ChecksumStream&&) noexcept = default;
ChecksumStream& ChecksumStream::operator=(ChecksumStream&&) noexcept = default;

void ChecksumStream::update(std::span<const std::byte> bytes) {
  MORAINE_CHECK(state_ != nullptr);
  if (bytes.empty()) return;
  MORAINE_CHECK(XXH3_64bits_update(&state_->xxh, bytes.data(), bytes.size()) == XXH_OK);
}

uint64_t ChecksumStream::digest() const {
  MORAINE_CHECK(state_ != nullptr);
  return XXH3_64bits_digest(&state_->xxh);
}

std::string checksum_text(uint64_t value) {
  return fmt::format("{:016x}", value);
}

}  // namespace moraine::quant
