#pragma once

#include <string>

namespace moraine::runtime {

/// A stretch of a rendered prompt and where it came from.
struct TextPiece {
  std::string text;
  /// True for what the chat template itself wrote (its literal text, bos/eos and other token variables): added tokens
  /// in it become ids. False for what came from messages, tools or documents: never more than ordinary text, even if it
  /// spells a control token.
  bool trusted = false;
};

}  // namespace moraine::runtime
