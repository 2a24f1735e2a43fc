#include "runtime/token_stream.h"

#include <gtest/gtest.h>

#include "runtime/utf8.h"
#include "support/random_values.h"
#include "support/small_tokenizer.h"

namespace moraine::runtime {
namespace {

/// Ids 0-255 are the bytes, 256 + k is the k-th part given.
Tokenizer byte_tokenizer() {
  return testing::make_tokenizer(testing::small_tokenizer_json(PreTokenizerKind::kQwen2));
}

/// A tokenizer with the tokens `left` and `right`, whatever bytes they hold.
Tokenizer tokenizer_with(const std::string& left, const std::string& right) {
  quant::Json json = testing::small_tokenizer_json(PreTokenizerKind::kQwen2);
  int32_t id = 1000;
  for (const std::string& part : {left, right}) {
    if (part.size() > 1) json["model"]["vocab"][bytes_to_alphabet(part)] = id;
    ++id;
  }
  return testing::make_tokenizer(json);
}

TEST(TokenStream, MultiByteTextSplitAnywhere) {
  const std::string text = "aé中🦙é🦙z";
  for (size_t cut = 1; cut < text.size(); ++cut) {
    const std::string left = text.substr(0, cut);
    const std::string right = text.substr(cut);
    const Tokenizer tokenizer = tokenizer_with(left, right);
    TokenStream stream(tokenizer);
    const std::string first = stream.push(left.size() > 1 ? 1000 : static_cast<unsigned char>(left[0]));
    const std::string second = stream.push(right.size() > 1 ? 1001 : static_cast<unsigned char>(right[0]));
    EXPECT_TRUE(is_valid_utf8(first)) << cut;
    EXPECT_EQ(first.find(kReplacementCharacter), std::string::npos) << cut;
    EXPECT_GE(first.size() + 3, left.size()) << "more than a character was held back at " << cut;
    EXPECT_EQ(first + second, text) << cut;
    EXPECT_EQ(stream.finish(), "");
  }
}

TEST(TokenStream, HoldsBackUntilTheCharacterIsComplete) {
  const Tokenizer tokenizer = byte_tokenizer();
  TokenStream stream(tokenizer);
  EXPECT_EQ(stream.push('a'), "a");
  EXPECT_EQ(stream.push(0xf0), "");
  EXPECT_EQ(stream.push(0x9f), "");
  EXPECT_EQ(stream.push(0xa6), "");
  EXPECT_EQ(stream.push(0x99), "🦙");
  EXPECT_EQ(stream.push(0xe4), "");
  EXPECT_EQ(stream.push('b'),
            "\uFFFD"
            "b");
  EXPECT_EQ(stream.push(0xff), "\uFFFD");
}

TEST(TokenStream, FinishEndsABrokenCharacterAndStartsAnew) {
  const Tokenizer tokenizer = byte_tokenizer();
  TokenStream stream(tokenizer);
  EXPECT_EQ(stream.push(0xe4), "");
  EXPECT_EQ(stream.push(0xb8), "");
  EXPECT_EQ(stream.finish(), "\uFFFD");
  EXPECT_EQ(stream.finish(), "");
  EXPECT_EQ(stream.push(0xad), "\uFFFD");  // does not complete what was before
}

TEST(TokenStream, AddedTokensAndPaddingIds) {
  const Tokenizer tokenizer = byte_tokenizer();
  TokenStream stream(tokenizer);
  EXPECT_EQ(stream.push(258), "<｜User｜>");
  EXPECT_EQ(stream.push(0xc3), "");
  EXPECT_EQ(stream.push(5000), "");  // no token: nothing comes, nothing is lost
  EXPECT_EQ(stream.push(-1), "");
  EXPECT_EQ(stream.push(0xa9), "é");
}

TEST(TokenStream, EqualsDecodeForAnyIds) {
  const Tokenizer tokenizer = byte_tokenizer();
  constexpr int32_t kIds[] = {'a',  0x80, 0xbf, 0xc3, 0xa9, 0xe4, 0xb8, 0xad,
                              0xed, 0xa0, 0xf0, 0x9f, 0xa6, 0x99, 0xff, 258};
  testing::RandomValues random(5);
  for (int round = 0; round < 3000; ++round) {
    std::vector<int32_t> ids(random.bits() % 24);
    for (int32_t& id : ids) id = kIds[random.bits() % std::size(kIds)];
    TokenStream stream(tokenizer);
    std::string streamed;
    for (const int32_t id : ids) {
      const std::string part = stream.push(id);
      ASSERT_TRUE(is_valid_utf8(part));
      streamed += part;
    }
    streamed += stream.finish();
    ASSERT_EQ(streamed, tokenizer.decode(ids)) << "round " << round;
  }
}

}  // namespace
}  // namespace moraine::runtime
