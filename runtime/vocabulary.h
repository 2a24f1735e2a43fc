#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace moraine::runtime {

/// One token: its id, and its bytes as they appear in a decoded text.
struct Token {
  int32_t id = 0;
  std::string bytes;
};

/// The bytes of every token by id, and the way back. Immutable. Ids without a token (padding) have no bytes.
class Vocabulary {
 public:
  /// No vocabulary has more ids than this; a file that claims a higher one is broken.
  static constexpr int32_t kMaxTokenId = 1 << 24;

  Vocabulary() = default;

  /// Takes distinct ids in [0, kMaxTokenId]. Tokens in `unlisted` can be decoded but `find` does not return them.
  Vocabulary(const std::vector<Token>& tokens, const std::vector<Token>& unlisted);

  /// 1 + the highest id.
  int32_t size() const { return static_cast<int32_t>(offset_.size()) - 1; }

  /// Bytes of one token; empty if no token has this id.
  std::string_view token_bytes(int32_t id) const {
    if (id < 0 || id >= size()) return {};
    const auto at = static_cast<size_t>(id);
    return std::string_view(bytes_).substr(offset_[at], offset_[at + 1] - offset_[at]);
  }

  /// The listed token with exactly these bytes.
  std::optional<int32_t> find(std::string_view bytes) const;

 private:
  void index(const std::vector<Token>& tokens);

  std::string bytes_;                   // bytes of all tokens, in order of id
  std::vector<uint32_t> offset_ = {0};  // [size + 1] into bytes_
  std::vector<int32_t> slots_;          // [power of two] open-addressing hash table of ids, -1 = empty
  size_t longest_bytes_ = 0;            // of a listed token
};

}  // namespace moraine::runtime
