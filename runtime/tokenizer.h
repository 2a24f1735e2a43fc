#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/added_token_matcher.h"
#include "runtime/bpe.h"
#include "runtime/normalizer.h"
#include "runtime/pretokenizer.h"
#include "runtime/text_piece.h"

namespace moraine::runtime {

struct TokenizerFile;

/// Ids of the tokens that tokenizer_config.json names.
struct SpecialTokens {
  std::optional<int32_t> bos;
  std::optional<int32_t> eos;
  std::optional<int32_t> pad;
};

/// Whether added tokens (`<｜User｜>`, `<think>`, ...) in a text become their ids. Text of users and documents is
/// always kAsText: then no id of an added token can come out, whatever the text says.
enum class AddedTokens { kParse, kAsText };

/// Byte-level BPE as Hugging Face's tokenizer.json describes it; gives the same ids as their library. Immutable, may be
/// used by several threads at once. Two differences on purpose: added tokens inside text that is not trusted stay text,
/// and added tokens marked "normalized" are looked for before normalisation, like the others.
class Tokenizer {
 public:
  /// Reads tokenizer.json and, when present beside it, the bos, eos and pad tokens of tokenizer_config.json. Throws
  /// quant::Error(kIo, kBadFile).
  static Tokenizer from_directory(const std::filesystem::path& directory);

  /// The same from the texts of the two files, the second of which may be absent; `file` and `config_file` are their
  /// names for messages.
  static Tokenizer from_texts(std::string_view tokenizer_json, const std::filesystem::path& file,
                              const std::optional<std::string>& config_json, const std::filesystem::path& config_file);

  /// Reads the text of a tokenizer.json; special() stays empty. Throws quant::Error(kBadFile).
  static Tokenizer from_json(std::string_view json_text, const std::filesystem::path& file_for_messages);

  /// The ids of `text`. Invalid UTF-8 counts as U+FFFD. Never adds a BOS.
  std::vector<int32_t> encode(std::string_view text, AddedTokens added) const;

  /// The ids of the joined pieces, where added tokens are ids only if they lie wholly inside trusted text. What lies
  /// between is encoded as one text, whatever piece borders it has.
  std::vector<int32_t> encode(std::span<const TextPiece> pieces) const;

  /// The text of `ids`: their bytes joined, then invalid UTF-8 replaced by U+FFFD. Unknown ids give nothing.
  std::string decode(std::span<const int32_t> ids) const;

  /// Raw bytes of one token; empty if no token has this id (padding rows of the model). Valid as long as *this.
  std::string_view token_bytes(int32_t id) const { return bpe_.vocabulary().token_bytes(id); }

  /// The id of an added token's content, or of a token as tokenizer.json writes it ("Ġthe").
  std::optional<int32_t> token_id(std::string_view added_or_vocab_content) const;

  /// True for an added token that the file marks "special".
  bool is_special(int32_t id) const { return has_flag(id, kSpecial); }

  /// True for every added token.
  bool is_added(int32_t id) const { return has_flag(id, kAdded); }

  /// 1 + the highest id. A model may have more rows: padding.
  int32_t vocab_size() const { return bpe_.vocabulary().size(); }

  const SpecialTokens& special() const { return special_; }

 private:
  static constexpr uint8_t kAdded = 1;
  static constexpr uint8_t kSpecial = 2;

  explicit Tokenizer(const TokenizerFile& file);

  bool has_flag(int32_t id, uint8_t flag) const {
    return id >= 0 && id < vocab_size() && (flags_[static_cast<size_t>(id)] & flag) != 0;
  }
  void read_special_tokens(std::string_view config_json, const std::filesystem::path& config_file);
  void encode_ordinary(std::string_view text, std::vector<int32_t>& ids) const;

  Bpe bpe_;
  PreTokenizer pre_tokenizer_;
  NormalizerKind normalizer_;
  AddedTokenMatcher added_;
  std::vector<uint8_t> flags_;  // [vocab_size] kAdded, kSpecial
  SpecialTokens special_;
};

}  // namespace moraine::runtime
