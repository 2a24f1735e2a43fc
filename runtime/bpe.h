#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "runtime/vocabulary.h"

namespace moraine::runtime {

/// Two adjacent tokens that become one. The position in the list of merges is the merge's rank.
struct BpeMerge {
  int32_t left = 0;
  int32_t right = 0;
  int32_t result = 0;
};

/// Byte-pair encoding of one pre-token: starting from its bytes, the adjacent pair with the lowest rank is merged
/// (leftmost first) until no pair is in the list. O(n log n) for a piece of n bytes. Immutable.
class Bpe {
 public:
  /// A single byte must be a listed token of `vocabulary`, for each of the 256 bytes. Of several merges of the same
  /// pair the last counts. With `ignore_merges`, a piece that is a listed token becomes that token without merging.
  Bpe(Vocabulary vocabulary, const std::vector<BpeMerge>& merges, bool ignore_merges);

  /// Appends the ids of `piece`.
  void encode(std::string_view piece, std::vector<int32_t>& ids) const;

  const Vocabulary& vocabulary() const { return vocabulary_; }

 private:
  static constexpr uint32_t kNoMerge = UINT32_MAX;
  static constexpr size_t kShortPieceBytes = 24;  // up to here scanning all pairs is faster than a heap

  struct Slot {
    uint64_t pair = kEmptyPair;
    uint32_t rank = kNoMerge;
  };
  static constexpr uint64_t kEmptyPair = UINT64_MAX;

  uint32_t rank_of(int32_t left, int32_t right) const;
  size_t slot_of(uint64_t pair) const;
  void merge(std::string_view piece, std::vector<int32_t>& ids) const;
  void merge_short(std::string_view piece, std::vector<int32_t>& ids) const;
  void merge_long(std::string_view piece, std::vector<int32_t>& ids) const;

  Vocabulary vocabulary_;
  std::array<int32_t, 256> byte_ids_{};  // [byte]
  std::vector<Slot> slots_;              // [power of two] open-addressing hash table: pair -> rank
  std::vector<int32_t> results_;         // [rank]
  std::vector<bool> whole_;              // [vocabulary size] true: a piece with this token's bytes becomes this token
};

}  // namespace moraine::runtime
