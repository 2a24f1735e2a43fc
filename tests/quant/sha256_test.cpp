#include "quant/sha256.h"

#include <gtest/gtest.h>

#include <string_view>
#include <vector>

namespace moraine::quant {
namespace {

std::string digest(std::string_view text, bool use_instructions, size_t piece_bytes = SIZE_MAX) {
  Sha256 hash(use_instructions);
  for (; text.size() > piece_bytes; text.remove_prefix(piece_bytes)) {
    hash.update(std::as_bytes(std::span(text.substr(0, piece_bytes))));
  }
  hash.update(std::as_bytes(std::span(text)));
  return hash.hex_digest();
}

class EitherSha256 : public ::testing::TestWithParam<bool> {};

/// Values of Python's hashlib, the first three are FIPS 180-4's own examples.
TEST_P(EitherSha256, IsTheStandards) {
  EXPECT_EQ(digest("abc", GetParam()), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(digest("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq", GetParam()),
            "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
  EXPECT_EQ(digest(std::string(1000000, 'a'), GetParam()),
            "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
  EXPECT_EQ(digest("", GetParam()), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
}

TEST_P(EitherSha256, PiecesDoNotMatter) {
  std::string text;
  for (int i = 0; i < 1000; ++i) text += static_cast<char>(i * 7);
  const std::string whole = digest(text, GetParam());
  for (const size_t piece : {1u, 3u, 55u, 56u, 63u, 64u, 65u, 128u, 999u}) {
    EXPECT_EQ(digest(text, GetParam(), piece), whole) << piece;
  }
}

/// Every length around the places where the padding takes another block.
TEST(Sha256, BothWaysAgree) {
  for (size_t length = 0; length < 200; ++length) {
    const std::string text(length, static_cast<char>('a' + length % 26));
    EXPECT_EQ(digest(text, true), digest(text, false)) << length;
  }
}

INSTANTIATE_TEST_SUITE_P(, EitherSha256, ::testing::Bool());

}  // namespace
}  // namespace moraine::quant
