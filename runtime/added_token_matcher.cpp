#include "runtime/added_token_matcher.h"

#include <algorithm>
#include <utility>

#include "quant/error.h"

namespace moraine::runtime {

AddedTokenMatcher::AddedTokenMatcher(std::vector<Token> tokens) : tokens_(std::move(tokens)) {
  std::ranges::sort(tokens_, {}, &Token::bytes);
  for (const Token& token : tokens_) {
    MORAINE_CHECK(!token.bytes.empty() && token.bytes.size() <= kMaxContentBytes);
    begins_[static_cast<unsigned char>(token.bytes[0])] = true;
  }
}

std::optional<AddedTokenMatcher::Match> AddedTokenMatcher::find(std::string_view text, size_t from) const {
  for (size_t begin = from; begin < text.size(); ++begin) {
    if (!begins_[static_cast<unsigned char>(text[begin])]) continue;
    if (const auto match = match_at(text, begin)) return match;
  }
  return std::nullopt;
}

std::optional<AddedTokenMatcher::Match> AddedTokenMatcher::match_at(std::string_view text, size_t begin) const {
  std::optional<Match> longest;
  auto first = tokens_.begin();  // [first, last) are the tokens that agree with the text in their first `depth` bytes
  auto last = tokens_.end();
  for (size_t depth = 0; begin + depth < text.size() && first != last; ++depth) {
    // A token of exactly `depth` bytes sorts before its extensions, and has been taken already.
    if (first->bytes.size() == depth) ++first;
    const auto byte = static_cast<unsigned char>(text[begin + depth]);
    const auto byte_at = [depth](const Token& token) { return static_cast<unsigned char>(token.bytes[depth]); };
    first = std::partition_point(first, last, [&](const Token& token) { return byte_at(token) < byte; });
    last = std::partition_point(first, last, [&](const Token& token) { return byte_at(token) == byte; });
    if (first != last && first->bytes.size() == depth + 1) {
      longest = Match{begin, begin + depth + 1, first->id};
    }
  }
  return longest;
}

std::optional<int32_t> AddedTokenMatcher::id_of(std::string_view content) const {
  const auto at =
      std::ranges::lower_bound(tokens_, content, {}, [](const Token& t) { return std::string_view(t.bytes); });
  if (at == tokens_.end() || at->bytes != content) return std::nullopt;
  return at->id;
}

}  // namespace moraine::runtime
