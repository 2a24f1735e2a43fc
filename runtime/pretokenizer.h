#pragma once

#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace moraine::runtime {

/// The ways of cutting a text that Moraine knows (shared/spec: tokenizers, section 2).
enum class PreTokenizerKind { kDeepSeekV3, kQwen2, kLlama3 };

/// The kind whose tokenizer.json has exactly these Split regexes, in this order; nothing if there is none.
std::optional<PreTokenizerKind> find_pre_tokenizer(std::span<const std::string> regexes);

/// The Split regexes of that kind, in the order in which they are applied.
std::span<const std::string_view> pre_tokenizer_regexes(PreTokenizerKind kind);

/// Cuts a text into the pieces that byte-pair encoding never crosses. Each regex is applied to every piece the one
/// before it left; matches and the stretches between them both become pieces ("Isolated"). Linear in the text.
class PreTokenizer {
 public:
  explicit PreTokenizer(PreTokenizerKind kind);

  /// The pieces of `text`, in order and without gaps; views into `text`, which must be valid UTF-8.
  /// Throws quant::Error(kNotEnough) if the regex engine finds no memory.
  std::vector<std::string_view> split(std::string_view text) const;

  PreTokenizerKind kind() const { return kind_; }

 private:
  class Regex;

  PreTokenizerKind kind_;
  std::vector<std::shared_ptr<const Regex>> regexes_;  // [passes]
};

}  // namespace moraine::runtime
