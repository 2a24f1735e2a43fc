#include "runtime/vocabulary.h"

#include <algorithm>
#include <bit>
#include <functional>

#include "quant/error.h"

namespace moraine::runtime {
namespace {

size_t hash_of(std::string_view bytes) {
  return std::hash<std::string_view>{}(bytes);
}

}  // namespace

Vocabulary::Vocabulary(const std::vector<Token>& tokens, const std::vector<Token>& unlisted) {
  int32_t id_end = 0;
  size_t total_bytes = 0;
  for (const auto* list : {&tokens, &unlisted}) {
    for (const Token& token : *list) {
      MORAINE_CHECK(token.id >= 0 && token.id <= kMaxTokenId);
      id_end = std::max(id_end, token.id + 1);
      total_bytes += token.bytes.size();
    }
  }
  MORAINE_CHECK(total_bytes <= UINT32_MAX);

  offset_.assign(static_cast<size_t>(id_end) + 1, 0);
  for (const auto* list : {&tokens, &unlisted}) {
    for (const Token& token : *list)
      offset_[static_cast<size_t>(token.id) + 1] += static_cast<uint32_t>(token.bytes.size());
  }
  for (size_t i = 1; i < offset_.size(); ++i) offset_[i] += offset_[i - 1];
  bytes_.resize(total_bytes);
  for (const auto* list : {&tokens, &unlisted}) {
    for (const Token& token : *list) {
      // Fails if two tokens share an id.
      MORAINE_CHECK(token_bytes(token.id).size() == token.bytes.size());
      std::copy(token.bytes.begin(), token.bytes.end(), bytes_.begin() + offset_[static_cast<size_t>(token.id)]);
    }
  }
  index(tokens);
}

void Vocabulary::index(const std::vector<Token>& tokens) {
  slots_.assign(std::bit_ceil(tokens.size() * 2 + 1), -1);
  for (const Token& token : tokens) {
    longest_bytes_ = std::max(longest_bytes_, token.bytes.size());
    size_t slot = hash_of(token.bytes) & (slots_.size() - 1);
    while (slots_[slot] >= 0) slot = (slot + 1) & (slots_.size() - 1);
    slots_[slot] = token.id;
  }
}

std::optional<int32_t> Vocabulary::find(std::string_view bytes) const {
  if (bytes.size() > longest_bytes_ || slots_.empty()) return std::nullopt;
  size_t slot = hash_of(bytes) & (slots_.size() - 1);
  while (slots_[slot] >= 0) {
    if (token_bytes(slots_[slot]) == bytes) return slots_[slot];
    slot = (slot + 1) & (slots_.size() - 1);
  }
  return std::nullopt;
}

}  // namespace moraine::runtime
