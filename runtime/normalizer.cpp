#include "runtime/normalizer.h"

#include <utf8proc.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <span>
#include <vector>

#include "quant/error.h"
#include "runtime/unicode_tables.h"

namespace moraine::runtime {
namespace {

/// No character below U+0300 is changed by form C or combines with one before it, so such text is done already.
bool is_surely_nfc(std::string_view text) {
  return std::ranges::all_of(text, [](char byte) { return static_cast<unsigned char>(byte) < 0xCC; });
}

uint8_t combining_class(int32_t codepoint) {
  if (is_unknown_to_nfc(codepoint)) return 0;
  return static_cast<uint8_t>(utf8proc_get_property(codepoint)->combining_class);
}

/// Appends the canonical decomposition of every character of `text`.
void decompose(std::string_view text, std::vector<int32_t>& codepoints) {
  const auto* bytes = reinterpret_cast<const utf8proc_uint8_t*>(text.data());
  auto left = static_cast<utf8proc_ssize_t>(text.size());
  while (left > 0) {
    utf8proc_int32_t codepoint = 0;
    const utf8proc_ssize_t length = utf8proc_iterate(bytes, left, &codepoint);
    MORAINE_CHECK(length > 0);
    bytes += length;
    left -= length;
    if (is_unknown_to_nfc(codepoint)) {
      codepoints.push_back(codepoint);
      continue;
    }
    std::array<utf8proc_int32_t, 32> parts;  // the longest canonical decomposition has 4
    const utf8proc_ssize_t count =
        utf8proc_decompose_char(codepoint, parts.data(), static_cast<utf8proc_ssize_t>(parts.size()),
                                static_cast<utf8proc_option_t>(UTF8PROC_DECOMPOSE | UTF8PROC_STABLE), nullptr);
    MORAINE_CHECK(count >= 0 && count <= static_cast<utf8proc_ssize_t>(parts.size()));
    codepoints.insert(codepoints.end(), parts.begin(), parts.begin() + count);
  }
}

/// Sorts every run of combining marks by class. utf8proc's own way takes quadratic time for a long run.
void order_marks(std::vector<int32_t>& codepoints) {
  const auto is_mark = [](int32_t codepoint) { return combining_class(codepoint) != 0; };
  auto begin = codepoints.begin();
  while ((begin = std::find_if(begin, codepoints.end(), is_mark)) != codepoints.end()) {
    const auto end = std::find_if_not(begin, codepoints.end(), is_mark);
    std::stable_sort(begin, end, [](int32_t a, int32_t b) { return combining_class(a) < combining_class(b); });
    begin = end;
  }
}

/// A character that composes with nothing, nor does anything across it. U+11A7 stands one before the first trailing
/// consonant; utf8proc takes it for one and drops it.
bool composes_never(int32_t codepoint) {
  return is_unknown_to_nfc(codepoint) || codepoint == 0x11A7;
}

/// Composes a stretch of ordered characters, and appends it.
void append_composed(std::span<int32_t> codepoints, std::string& text) {
  const utf8proc_ssize_t count =
      utf8proc_normalize_utf32(codepoints.data(), static_cast<utf8proc_ssize_t>(codepoints.size()),
                               static_cast<utf8proc_option_t>(UTF8PROC_COMPOSE | UTF8PROC_STABLE));
  MORAINE_CHECK(count >= 0);
  for (utf8proc_ssize_t i = 0; i < count; ++i) {
    std::array<utf8proc_uint8_t, 4> bytes;
    const utf8proc_ssize_t length = utf8proc_encode_char(codepoints[static_cast<size_t>(i)], bytes.data());
    text.append(reinterpret_cast<const char*>(bytes.data()), static_cast<size_t>(length));
  }
}

}  // namespace

std::string normalize_nfc(std::string_view text) {
  if (is_surely_nfc(text)) return std::string(text);
  std::vector<int32_t> codepoints;
  codepoints.reserve(text.size());
  decompose(text, codepoints);
  order_marks(codepoints);
  std::string composed;
  composed.reserve(text.size());
  for (auto begin = codepoints.begin(); begin != codepoints.end();) {
    const auto end = std::find_if(begin + 1, codepoints.end(), composes_never);
    append_composed({begin, end}, composed);
    begin = end;
  }
  return composed;
}

}  // namespace moraine::runtime
