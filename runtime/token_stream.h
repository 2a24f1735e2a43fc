#pragma once

#include <cstdint>
#include <string>

#include "runtime/tokenizer.h"

namespace moraine::runtime {

/// Turns tokens into text as they come. A token may end inside a character: such bytes are held back until the next
/// tokens complete them. All that `push` and `finish` return, joined, is what Tokenizer::decode gives for all the ids.
class TokenStream {
 public:
  /// `tokenizer` must outlive the stream.
  explicit TokenStream(const Tokenizer& tokenizer) : tokenizer_(&tokenizer) {}

  /// The text that token `id` completes: valid UTF-8, maybe empty.
  std::string push(int32_t id);

  /// The end of the text: U+FFFD if it broke off inside a character, otherwise nothing. The stream is then as new.
  std::string finish();

 private:
  const Tokenizer* tokenizer_;
  std::string held_;  // 0 to 3 bytes that may become a character
};

}  // namespace moraine::runtime
