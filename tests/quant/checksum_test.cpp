#include "quant/checksum.h"

#include <gtest/gtest.h>

#include <string_view>
#include <vector>

namespace moraine::quant {
namespace {

uint64_t checksum_of(std::string_view text) {
  return checksum(std::as_bytes(std::span(text)));
}

std::vector<std::byte> ramp(size_t n) {
  std::vector<std::byte> bytes(n);
  for (size_t i = 0; i < n; ++i) bytes[i] = static_cast<std::byte>(i * 7 + i / 251);
  return bytes;
}

TEST(Checksum, IsXxh3) {
  // Published values of XXH3-64 with seed 0.
  EXPECT_EQ(checksum_of(""), 0x2d06800538d394c2u);
  EXPECT_EQ(checksum_of("a"), 0xe6c632b61e964e1fu);
  EXPECT_EQ(checksum_of("abc"), 0x78af5f94892f3950u);
}

TEST(Checksum, SeesEveryFlippedBit) {
  std::vector<std::byte> bytes = ramp(300);
  const uint64_t before = checksum(bytes);
  for (size_t bit = 0; bit < bytes.size() * 8; ++bit) {
    bytes[bit / 8] ^= std::byte{1} << (bit % 8);
    EXPECT_NE(checksum(bytes), before) << bit;
    bytes[bit / 8] ^= std::byte{1} << (bit % 8);
  }
}

TEST(ChecksumStream, PiecesEqualTheWhole) {
  const std::vector<std::byte> bytes = ramp(5000);
  for (const size_t piece : {1u, 7u, 31u, 256u, 257u, 4999u, 5000u}) {
    ChecksumStream stream;
    for (size_t at = 0; at < bytes.size(); at += piece) {
      stream.update(std::span(bytes).subspan(at, std::min(piece, bytes.size() - at)));
    }
    stream.update({});
    EXPECT_EQ(stream.digest(), checksum(bytes)) << piece;
  }
}

TEST(ChecksumStream, DigestDoesNotEndTheStreamAndMovesCarryIt) {
  ChecksumStream first;
  EXPECT_EQ(first.digest(), checksum_of(""));
  first.update(std::as_bytes(std::span("ab", 2)));
  EXPECT_EQ(first.digest(), checksum_of("ab"));
  ChecksumStream second = std::move(first);
  second.update(std::as_bytes(std::span("c", 1)));
  EXPECT_EQ(second.digest(), checksum_of("abc"));
}

TEST(ChecksumText, Has16LowerCaseDigits) {
  EXPECT_EQ(checksum_text(0), "0000000000000000");
  EXPECT_EQ(checksum_text(0x2d06800538d394c2u), "2d06800538d394c2");
  EXPECT_EQ(checksum_text(~uint64_t{0}), "ffffffffffffffff");
}

}  // namespace
}  // namespace moraine::quant
