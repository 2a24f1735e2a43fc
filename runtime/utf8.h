#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace moraine::runtime {

/// U+FFFD, which stands for every maximal invalid part (Unicode 15, section 3.9, practice of Rust, Python and WHATWG).
inline constexpr std::string_view kReplacementCharacter = "\xEF\xBF\xBD";

/// What stands at the beginning of a byte string.
struct Utf8Head {
  size_t length_bytes = 0;  ///< of the character, or of the part that no character starts with; at least 1
  enum class Kind {
    kValid,       ///< one whole character
    kInvalid,     ///< a maximal part that can never become a character
    kIncomplete,  ///< the text ends inside what may still become a character
  } kind = Kind::kInvalid;
};

/// Classifies the beginning of `text`, which must not be empty.
Utf8Head utf8_head(std::string_view text);

/// Number of bytes at the end of `text` (0 to 3) that more bytes could complete to a character.
size_t incomplete_suffix_bytes(std::string_view text);

/// `text` with every invalid or incomplete part replaced by U+FFFD.
std::string repair_utf8(std::string_view text);

/// True if repair_utf8 would change nothing.
bool is_valid_utf8(std::string_view text);

}  // namespace moraine::runtime
