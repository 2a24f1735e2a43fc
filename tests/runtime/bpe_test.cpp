#include "runtime/bpe.h"

#include <gtest/gtest.h>

#include <chrono>
#include <map>
#include <string>

#include "support/random_values.h"

namespace moraine::runtime {
namespace {

struct Merges {
  std::vector<Token> tokens;
  std::vector<BpeMerge> merges;
  std::map<std::string, int32_t> id_of;
};

/// Bytes have ids 0-255; merge k makes the token 256 + k unless an earlier merge made the same bytes.
Merges make_merges(const std::vector<std::pair<std::string, std::string>>& parts) {
  Merges made;
  const auto add = [&](const std::string& bytes) {
    const auto [at, is_new] = made.id_of.emplace(bytes, static_cast<int32_t>(made.id_of.size()));
    if (is_new) made.tokens.push_back({at->second, bytes});
    return at->second;
  };
  for (int byte = 0; byte < 256; ++byte) add(std::string(1, static_cast<char>(byte)));
  for (const auto& [left, right] : parts) {
    made.merges.push_back({made.id_of.at(left), made.id_of.at(right), add(left + right)});
  }
  return made;
}

Bpe make_bpe(const Merges& made, bool ignore_merges = false) {
  return Bpe(Vocabulary(made.tokens, {}), made.merges, ignore_merges);
}

std::vector<int32_t> encode(const Bpe& bpe, std::string_view piece) {
  std::vector<int32_t> ids;
  bpe.encode(piece, ids);
  return ids;
}

/// The definition, word for word: merge the leftmost pair of the lowest rank until there is none.
std::vector<int32_t> encode_by_definition(const Merges& made, std::string_view piece) {
  std::vector<int32_t> ids;
  for (const char byte : piece) ids.push_back(static_cast<unsigned char>(byte));
  for (;;) {
    size_t best_rank = made.merges.size();
    size_t best_at = 0;
    for (size_t at = 0; at + 1 < ids.size(); ++at) {
      for (size_t rank = 0; rank < best_rank; ++rank) {
        if (made.merges[rank].left != ids[at] || made.merges[rank].right != ids[at + 1]) continue;
        best_rank = rank;
        best_at = at;
      }
    }
    if (best_rank == made.merges.size()) return ids;
    ids[best_at] = made.merges[best_rank].result;
    ids.erase(ids.begin() + static_cast<ptrdiff_t>(best_at) + 1);
  }
}

TEST(Bpe, WithoutMergesEveryByteIsAToken) {
  const Bpe bpe = make_bpe(make_merges({}));
  EXPECT_EQ(encode(bpe, ""), std::vector<int32_t>());
  EXPECT_EQ(encode(bpe, "a"), std::vector<int32_t>({'a'}));
  EXPECT_EQ(encode(bpe, "\xff\x01"), std::vector<int32_t>({255, 1}));
}

TEST(Bpe, LowestRankFirstAndLeftmostOnTies) {
  const Bpe bpe = make_bpe(make_merges({{"b", "c"}, {"a", "b"}, {"a", "a"}}));
  EXPECT_EQ(encode(bpe, "abc"), std::vector<int32_t>({'a', 256}));  // bc (rank 0) before ab (rank 1)
  EXPECT_EQ(encode(bpe, "aba"), std::vector<int32_t>({257, 'a'}));
  EXPECT_EQ(encode(bpe, "aaa"), std::vector<int32_t>({258, 'a'}));
}

TEST(Bpe, IgnoreMergesTakesAWholeToken) {
  // "abc" is a token, but the merges build bc first and then find nothing for a + bc.
  Merges made = make_merges({{"b", "c"}, {"a", "b"}, {"ab", "c"}});
  EXPECT_EQ(encode(make_bpe(made), "abc"), std::vector<int32_t>({'a', 256}));
  EXPECT_EQ(encode(make_bpe(made, true), "abc"), std::vector<int32_t>({258}));
  EXPECT_EQ(encode(make_bpe(made, true), "abcb"), std::vector<int32_t>({'a', 256, 'b'}));
}

TEST(Bpe, EqualsTheDefinitionOnRandomMergesAndTexts) {
  testing::RandomValues random(11);
  const auto draw = [&](size_t end) { return static_cast<size_t>(random.bits() % end); };
  for (int round = 0; round < 30; ++round) {
    std::vector<std::string> tokens = {"a", "b", "c"};
    std::vector<std::pair<std::string, std::string>> parts;
    std::map<std::pair<std::string, std::string>, bool> seen;
    while (parts.size() < 40) {
      const auto pair = std::pair(tokens[draw(tokens.size())], tokens[draw(tokens.size())]);
      if (!seen.emplace(pair, true).second) continue;
      parts.push_back(pair);
      tokens.push_back(pair.first + pair.second);
    }
    const Merges made = make_merges(parts);
    const Bpe bpe = make_bpe(made);
    for (int i = 0; i < 60; ++i) {
      std::string piece(draw(80), 'a');  // both sides of the border between short and long pieces
      for (char& byte : piece) byte = static_cast<char>('a' + draw(3));
      ASSERT_EQ(encode(bpe, piece), encode_by_definition(made, piece)) << "round " << round << ": " << piece;
    }
    for (const std::string& token : tokens) {
      ASSERT_EQ(encode(bpe, token), encode_by_definition(made, token)) << "round " << round << ": " << token;
    }
  }
}

TEST(Bpe, LongRunsTakeNoQuadraticTime) {
  const Bpe bpe = make_bpe(make_merges({{"a", "a"}, {"aa", "aa"}, {"aaaa", "aaaa"}}));
  const auto start = std::chrono::steady_clock::now();
  const std::vector<int32_t> ids = encode(bpe, std::string(500'000, 'a'));
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
  EXPECT_EQ(ids, std::vector<int32_t>(62'500, 258));
  EXPECT_LT(seconds.count(), 5.0);  // takes 0.1 s; quadratic time would be minutes
}

TEST(BpeDeathTest, NeedsATokenForEveryByte) {
  Merges made = make_merges({});
  made.tokens.pop_back();
  EXPECT_DEATH(make_bpe(made), "internal error");
}

}  // namespace
}  // namespace moraine::runtime
