#include "runtime/utf8.h"

#include <algorithm>
#include <cstdint>
#include <cstring>

namespace moraine::runtime {
namespace {

/// Bounds of the second byte and number of bytes for a lead byte (Unicode 15, table 3-7); length 0: no lead byte.
struct Lead {
  size_t length_bytes;
  unsigned char second_min;
  unsigned char second_max;
};

Lead classify_lead(unsigned char byte) {
  if (byte < 0x80) return {1, 0, 0};
  if (byte < 0xC2) return {0, 0, 0};
  if (byte < 0xE0) return {2, 0x80, 0xBF};
  if (byte == 0xE0) return {3, 0xA0, 0xBF};
  if (byte == 0xED) return {3, 0x80, 0x9F};
  if (byte < 0xF0) return {3, 0x80, 0xBF};
  if (byte == 0xF0) return {4, 0x90, 0xBF};
  if (byte < 0xF4) return {4, 0x80, 0xBF};
  if (byte == 0xF4) return {4, 0x80, 0x8F};
  return {0, 0, 0};
}

/// Length of the longest valid beginning of `text`.
size_t valid_prefix_bytes(std::string_view text) {
  size_t at = 0;
  while (at < text.size()) {
    if (at + sizeof(uint64_t) <= text.size()) {  // eight ASCII bytes at a time
      uint64_t word;
      std::memcpy(&word, text.data() + at, sizeof(word));
      if ((word & 0x8080808080808080u) == 0) {
        at += sizeof(word);
        continue;
      }
    }
    const Utf8Head head = utf8_head(text.substr(at));
    if (head.kind != Utf8Head::Kind::kValid) break;
    at += head.length_bytes;
  }
  return at;
}

}  // namespace

Utf8Head utf8_head(std::string_view text) {
  using Kind = Utf8Head::Kind;
  const Lead lead = classify_lead(static_cast<unsigned char>(text[0]));
  if (lead.length_bytes == 0) return {1, Kind::kInvalid};
  for (size_t i = 1; i < lead.length_bytes; ++i) {
    if (i == text.size()) return {i, Kind::kIncomplete};
    const auto byte = static_cast<unsigned char>(text[i]);
    const unsigned char low = i == 1 ? lead.second_min : 0x80;
    const unsigned char high = i == 1 ? lead.second_max : 0xBF;
    if (byte < low || byte > high) return {i, Kind::kInvalid};
  }
  return {lead.length_bytes, Kind::kValid};
}

size_t incomplete_suffix_bytes(std::string_view text) {
  for (size_t bytes = 1; bytes <= std::min<size_t>(3, text.size()); ++bytes) {
    const Utf8Head head = utf8_head(text.substr(text.size() - bytes));
    if (head.kind == Utf8Head::Kind::kIncomplete && head.length_bytes == bytes) return bytes;
  }
  return 0;
}

std::string repair_utf8(std::string_view text) {
  std::string repaired;
  repaired.reserve(text.size());
  while (!text.empty()) {
    const size_t valid_bytes = valid_prefix_bytes(text);
    repaired += text.substr(0, valid_bytes);
    text.remove_prefix(valid_bytes);
    if (text.empty()) break;
    text.remove_prefix(utf8_head(text).length_bytes);
    repaired += kReplacementCharacter;
  }
  return repaired;
}

bool is_valid_utf8(std::string_view text) {
  return valid_prefix_bytes(text) == text.size();
}

}  // namespace moraine::runtime
