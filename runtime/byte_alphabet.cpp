#include "runtime/byte_alphabet.h"

#include <array>
#include <cstdint>

namespace moraine::runtime {
namespace {

constexpr uint16_t kAlphabetEnd = 0x100 + 68;  ///< one past the highest character of the alphabet

constexpr bool stands_for_itself(unsigned byte) {
  return (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174;
}

constexpr std::array<uint16_t, 256> make_characters() {
  std::array<uint16_t, 256> character_of{};
  uint16_t next = 0x100;
  for (unsigned byte = 0; byte < 256; ++byte) {
    character_of[byte] = stands_for_itself(byte) ? static_cast<uint16_t>(byte) : next++;
  }
  return character_of;
}

constexpr std::array<uint16_t, 256> kCharacterOf = make_characters();

constexpr std::array<int16_t, kAlphabetEnd> make_bytes() {
  std::array<int16_t, kAlphabetEnd> byte_of{};
  for (auto& byte : byte_of) byte = -1;
  for (unsigned byte = 0; byte < 256; ++byte) byte_of[kCharacterOf[byte]] = static_cast<int16_t>(byte);
  return byte_of;
}

constexpr std::array<int16_t, kAlphabetEnd> kByteOf = make_bytes();

}  // namespace

std::string bytes_to_alphabet(std::string_view bytes) {
  std::string written;
  written.reserve(bytes.size() * 2);
  for (const char byte : bytes) {
    const unsigned character = kCharacterOf[static_cast<unsigned char>(byte)];
    if (character < 0x80) {
      written += static_cast<char>(character);
    } else {  // the alphabet ends below U+0800: two bytes of UTF-8
      written += static_cast<char>(0xC0 | (character >> 6));
      written += static_cast<char>(0x80 | (character & 0x3F));
    }
  }
  return written;
}

std::optional<std::string> alphabet_to_bytes(std::string_view written) {
  std::string bytes;
  bytes.reserve(written.size());
  for (size_t i = 0; i < written.size(); ++i) {
    unsigned character = static_cast<unsigned char>(written[i]);
    if (character >= 0x80) {
      if (character >= 0xE0 || i + 1 == written.size()) return std::nullopt;
      character = ((character & 0x1F) << 6) | (static_cast<unsigned char>(written[++i]) & 0x3F);
    }
    if (character >= kAlphabetEnd || kByteOf[character] < 0) return std::nullopt;
    bytes += static_cast<char>(kByteOf[character]);
  }
  return bytes;
}

}  // namespace moraine::runtime
