#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "runtime/backend.h"

namespace moraine::runtime {

/// One sequence: the tokens whose keys and values its cache holds.
class Session {
 public:
  explicit Session(std::unique_ptr<KvCache> cache) : cache_(std::move(cache)) {}

  std::span<const int32_t> tokens() const { return tokens_; }
  KvCache& cache() { return *cache_; }

  /// Keeps the longest common prefix with `prompt` but never all of it (its last token is wanted for its logits),
  /// forgets the rest. Returns the tokens kept.
  int64_t keep_common_prefix(std::span<const int32_t> prompt);
  /// Notes tokens that a step has just added to the cache.
  void append(std::span<const int32_t> tokens);

 private:
  std::unique_ptr<KvCache> cache_;
  std::vector<int32_t> tokens_;
};

}  // namespace moraine::runtime
