#include "runtime/bpe.h"

#include <algorithm>
#include <bit>
#include <functional>
#include <queue>
#include <utility>

#include "quant/error.h"

namespace moraine::runtime {
namespace {

uint64_t pair_key(int32_t left, int32_t right) {
  return (static_cast<uint64_t>(static_cast<uint32_t>(left)) << 32) | static_cast<uint32_t>(right);
}

/// A token of a long piece on its way through the merges; symbols are linked from left to right.
struct Symbol {
  int32_t id;
  uint32_t previous;
  uint32_t next;
  uint32_t rank;  ///< of the merge with the next symbol; a queued candidate of another rank is stale
};

constexpr uint32_t kNone = UINT32_MAX;

/// Longer tokens are always merged anew: a hostile file of long tokens must not take long to load.
constexpr size_t kMaxWholeBytes = 256;

}  // namespace

Bpe::Bpe(Vocabulary vocabulary, const std::vector<BpeMerge>& merges, bool ignore_merges)
    : vocabulary_(std::move(vocabulary)) {
  for (size_t byte = 0; byte < byte_ids_.size(); ++byte) {
    const char character = static_cast<char>(byte);
    const auto id = vocabulary_.find({&character, 1});
    MORAINE_CHECK(id.has_value());
    byte_ids_[byte] = *id;
  }

  MORAINE_CHECK(merges.size() < kNoMerge);
  slots_.resize(std::bit_ceil(merges.size() * 3 / 2 + 1));
  results_.reserve(merges.size());
  for (const BpeMerge& merge : merges) {
    const uint64_t pair = pair_key(merge.left, merge.right);
    slots_[slot_of(pair)] = {pair, static_cast<uint32_t>(results_.size())};
    results_.push_back(merge.result);
  }

  // Most pieces of a text are tokens. Which tokens the merges build from their own bytes is found out once, here.
  whole_.resize(static_cast<size_t>(vocabulary_.size()));
  std::vector<int32_t> ids;
  for (int32_t id = 0; id < vocabulary_.size(); ++id) {
    const std::string_view bytes = vocabulary_.token_bytes(id);
    if (vocabulary_.find(bytes) != id) continue;
    if (!ignore_merges && bytes.size() > kMaxWholeBytes) continue;
    ids.clear();
    if (!ignore_merges) merge(bytes, ids);
    whole_[static_cast<size_t>(id)] = ignore_merges || (ids.size() == 1 && ids[0] == id);
  }
}

size_t Bpe::slot_of(uint64_t pair) const {
  const size_t mask = slots_.size() - 1;
  size_t slot = ((pair * 0x9E3779B97F4A7C15u) >> 32) & mask;
  while (slots_[slot].pair != pair && slots_[slot].pair != kEmptyPair) slot = (slot + 1) & mask;
  return slot;
}

uint32_t Bpe::rank_of(int32_t left, int32_t right) const {
  return slots_[slot_of(pair_key(left, right))].rank;
}

void Bpe::encode(std::string_view piece, std::vector<int32_t>& ids) const {
  const auto token = vocabulary_.find(piece);
  if (token && whole_[static_cast<size_t>(*token)]) {
    ids.push_back(*token);
  } else {
    merge(piece, ids);
  }
}

void Bpe::merge(std::string_view piece, std::vector<int32_t>& ids) const {
  if (piece.empty()) return;
  if (piece.size() <= kShortPieceBytes) {
    merge_short(piece, ids);
  } else {
    merge_long(piece, ids);
  }
}

void Bpe::merge_short(std::string_view piece, std::vector<int32_t>& ids) const {
  std::array<int32_t, kShortPieceBytes> symbols;   // [count]
  std::array<uint32_t, kShortPieceBytes> ranks{};  // [count - 1] of the merge of symbols i and i + 1
  size_t count = piece.size();
  for (size_t i = 0; i < count; ++i) symbols[i] = byte_ids_[static_cast<unsigned char>(piece[i])];
  for (size_t i = 0; i + 1 < count; ++i) ranks[i] = rank_of(symbols[i], symbols[i + 1]);
  while (count > 1) {
    const auto lowest = std::min_element(ranks.begin(), ranks.begin() + static_cast<ptrdiff_t>(count) - 1);
    if (*lowest == kNoMerge) break;
    const auto at = static_cast<size_t>(lowest - ranks.begin());
    symbols[at] = results_[*lowest];
    std::copy(symbols.begin() + static_cast<ptrdiff_t>(at) + 2, symbols.begin() + static_cast<ptrdiff_t>(count),
              symbols.begin() + static_cast<ptrdiff_t>(at) + 1);
    if (at + 2 < count) {
      std::copy(lowest + 2, ranks.begin() + static_cast<ptrdiff_t>(count) - 1, lowest + 1);
    }
    --count;
    if (at > 0) ranks[at - 1] = rank_of(symbols[at - 1], symbols[at]);
    if (at + 1 < count) ranks[at] = rank_of(symbols[at], symbols[at + 1]);
  }
  ids.insert(ids.end(), symbols.begin(), symbols.begin() + static_cast<ptrdiff_t>(count));
}

void Bpe::merge_long(std::string_view piece, std::vector<int32_t>& ids) const {
  MORAINE_CHECK(piece.size() < kNone);
  const auto count = static_cast<uint32_t>(piece.size());
  std::vector<Symbol> symbols(count);  // [bytes] a merged symbol stands at the position of its first byte
  std::vector<uint64_t> candidates;    // rank << 32 | position of the left symbol
  for (uint32_t i = 0; i < count; ++i) {
    symbols[i] = {byte_ids_[static_cast<unsigned char>(piece[i])], i == 0 ? kNone : i - 1,
                  i + 1 == count ? kNone : i + 1, kNoMerge};
  }
  const auto rank_at = [&](uint32_t at) {
    Symbol& symbol = symbols[at];
    symbol.rank = symbol.next == kNone ? kNoMerge : rank_of(symbol.id, symbols[symbol.next].id);
    return (static_cast<uint64_t>(symbol.rank) << 32) | at;
  };
  for (uint32_t i = 0; i < count; ++i) {
    const uint64_t candidate = rank_at(i);
    if (symbols[i].rank != kNoMerge) candidates.push_back(candidate);
  }
  std::priority_queue<uint64_t, std::vector<uint64_t>, std::greater<>> queue({}, std::move(candidates));
  const auto offer = [&](uint32_t at) {
    const uint64_t candidate = rank_at(at);
    if (symbols[at].rank != kNoMerge) queue.push(candidate);
  };

  while (!queue.empty()) {
    const auto rank = static_cast<uint32_t>(queue.top() >> 32);
    const auto at = static_cast<uint32_t>(queue.top());
    queue.pop();
    Symbol& left = symbols[at];
    if (left.rank != rank) continue;  // one of the two has been merged with another symbol
    Symbol& right = symbols[left.next];
    left.id = results_[rank];
    left.next = right.next;
    right.rank = kNoMerge;
    if (left.next != kNone) symbols[left.next].previous = at;
    offer(at);
    if (left.previous != kNone) offer(left.previous);
  }
  for (uint32_t at = 0; at != kNone; at = symbols[at].next) ids.push_back(symbols[at].id);
}

}  // namespace moraine::runtime
