#include "cpu/paged_cache.h"

#include "quant/error.h"

namespace moraine::cpu {
namespace {

int64_t pages_for(int64_t token_count) {
  return (token_count + PagedCache::kPageTokens - 1) / PagedCache::kPageTokens;
}

}  // namespace

void PagedCache::truncate(int64_t token_count) {
  MORAINE_CHECK(token_count >= 0 && token_count <= token_count_);
  token_count_ = token_count;
  pages_.resize(static_cast<size_t>(pages_for(token_count)));
}

uint64_t PagedCache::size_bytes() const {
  uint64_t bytes = 0;
  for (const quant::AlignedBuffer& page : pages_) bytes += page.size();
  return bytes;
}

void PagedCache::reserve(int64_t token_count) {
  const size_t before = pages_.size();
  try {
    while (pages_.size() < static_cast<size_t>(pages_for(token_count))) {
      pages_.emplace_back(static_cast<uint64_t>(page_bytes_));
    }
  } catch (...) {
    pages_.resize(before);
    throw;
  }
}

void PagedCache::commit(int64_t token_count) {
  MORAINE_CHECK(token_count >= token_count_ && pages_for(token_count) <= std::ssize(pages_));
  token_count_ = token_count;
}

std::byte* PagedCache::page(int64_t page_index) {
  MORAINE_CHECK(page_index >= 0 && page_index < std::ssize(pages_));
  return pages_[static_cast<size_t>(page_index)].data();
}

const std::byte* PagedCache::page(int64_t page_index) const {
  MORAINE_CHECK(page_index >= 0 && page_index < std::ssize(pages_));
  return pages_[static_cast<size_t>(page_index)].data();
}

}  // namespace moraine::cpu
