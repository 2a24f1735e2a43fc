#include "quant/sha256.h"

#include <gtest/gtest.h>

#include <string_view>

namespace moraine::quant {
namespace {

std::string digest(std::string_view text, size_t piece_bytes = SIZE_MAX) {
  Sha256 hash;
  for (; text.size() > piece_bytes; text.remove_prefix(piece_bytes)) {
    hash.update(std::as_bytes(std::span(text.substr(0, piece_bytes))));
  }
  hash.update(std::as_bytes(std::span(text)));
  return hash.hex_digest();
}

/// FIPS 180-4's own examples, and no bytes at all.
TEST(Sha256, IsTheStandards) {
  EXPECT_EQ(digest("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(digest("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq"),
            "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
  EXPECT_EQ(digest(""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
}

TEST(Sha256, PiecesDoNotMatter) {
  const std::string text(1000000, 'a');
  const std::string_view of_a_million = "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0";
  for (const size_t piece : {1u, 55u, 64u, 65u, 9999u}) EXPECT_EQ(digest(text, piece), of_a_million) << piece;
  EXPECT_EQ(digest(text), of_a_million);
}

}  // namespace
}  // namespace moraine::quant
