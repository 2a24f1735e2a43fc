#include "runtime/session.h"

#include <algorithm>

namespace moraine::runtime {

int64_t Session::keep_common_prefix(std::span<const int32_t> prompt) {
  const auto longest = std::min(tokens_.size(), prompt.empty() ? size_t{0} : prompt.size() - 1);
  const auto differs =
      std::mismatch(tokens_.begin(), tokens_.begin() + static_cast<ptrdiff_t>(longest), prompt.begin());
  const auto kept = differs.first - tokens_.begin();
  tokens_.resize(static_cast<size_t>(kept));
  cache_->truncate(kept);
  return kept;
}

void Session::append(std::span<const int32_t> tokens) {
  tokens_.insert(tokens_.end(), tokens.begin(), tokens.end());
}

}  // namespace moraine::runtime
