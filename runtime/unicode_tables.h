#pragma once

#include <algorithm>
#include <cstdint>
#include <iterator>
#include <string_view>

namespace moraine::runtime {

/// Where Hugging Face's tokenizers and the libraries used here know different versions of Unicode: its regexes have 16
/// (Debian 12's PCRE2 has 14), its NFC one before 11 (utf8proc 15). With these tables both agree, whatever the system
/// has from Unicode 14 on.
struct NewerInClass {
  char name;                ///< \p{name}
  std::string_view ranges;  ///< to be added to a class with \p{name}
};
struct CodepointRange {
  int32_t first;
  int32_t last;
};

#include "runtime/unicode_tables.inc"

/// True for a character that the reference's NFC leaves where it is, as if it was a letter without any composition.
inline bool is_unknown_to_nfc(int32_t codepoint) {
  if (codepoint < kUnknownToNfc[0].first) return false;
  const auto* range = std::lower_bound(std::begin(kUnknownToNfc), std::end(kUnknownToNfc), codepoint,
                                       [](const CodepointRange& r, int32_t wanted) { return r.last < wanted; });
  return range != std::end(kUnknownToNfc) && range->first <= codepoint;
}

}  // namespace moraine::runtime
