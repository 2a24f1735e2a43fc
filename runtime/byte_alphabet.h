#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace moraine::runtime {

/// The byte-level alphabet of GPT-2: tokenizer.json writes every byte of a token as one printable character. Bytes
/// 33-126, 161-172 and 174-255 stand for themselves; the other 68, in ascending order, are U+0100, U+0101, ...
/// (shared/spec: tokenizers, section 1).

/// The UTF-8 text that stands for `bytes`.
std::string bytes_to_alphabet(std::string_view bytes);

/// The bytes that the valid UTF-8 text `written` stands for, or nothing if it has a character outside the alphabet.
std::optional<std::string> alphabet_to_bytes(std::string_view written);

}  // namespace moraine::runtime
