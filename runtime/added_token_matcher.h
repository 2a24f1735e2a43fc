#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

#include "runtime/vocabulary.h"

namespace moraine::runtime {

/// Finds added tokens (`<｜User｜>`, `<think>`, ...) in a text: the leftmost first, of those that begin at the same
/// place the longest. Immutable.
class AddedTokenMatcher {
 public:
  /// Longest content a file may declare; it bounds the time per byte of text.
  static constexpr size_t kMaxContentBytes = 256;

  struct Match {
    size_t begin = 0;  ///< byte offset in the text
    size_t end = 0;
    int32_t id = 0;
  };

  AddedTokenMatcher() = default;

  /// Contents must be distinct, not empty and at most kMaxContentBytes long.
  explicit AddedTokenMatcher(std::vector<Token> tokens);

  /// The first match that begins at or after `from` and ends inside `text`.
  std::optional<Match> find(std::string_view text, size_t from) const;

  /// The token with exactly this content.
  std::optional<int32_t> id_of(std::string_view content) const;

 private:
  std::optional<Match> match_at(std::string_view text, size_t begin) const;

  std::vector<Token> tokens_;                          // sorted by content
  std::vector<bool> begins_ = std::vector<bool>(256);  // [byte] true: some content begins with it
};

}  // namespace moraine::runtime
