#pragma once

#include <string>
#include <string_view>

namespace moraine::runtime {

/// What happens to ordinary text before it is cut into pieces.
enum class NormalizerKind { kNone, kNfc };

/// `text` in Unicode normalisation form C, with the characters that Hugging Face's tokenizers knows
/// (runtime/unicode_tables.h). `text` must be valid UTF-8. O(n log n), whatever marks it piles up.
std::string normalize_nfc(std::string_view text);

}  // namespace moraine::runtime
