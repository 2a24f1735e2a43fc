#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/bpe.h"
#include "runtime/normalizer.h"
#include "runtime/pretokenizer.h"
#include "runtime/vocabulary.h"

namespace moraine::runtime {

/// An entry of "added_tokens": text that is cut out as one token before anything else happens to a text.
struct AddedToken {
  Token token;
  bool special = false;
};

/// What a tokenizer.json says, checked: ids are in range and distinct, merges refer to tokens, contents fit.
struct TokenizerFile {
  std::vector<Token> vocabulary;   // tokens that ordinary text can become; every single byte is among them
  std::vector<Token> unreachable;  // tokens with characters outside the byte alphabet, not added: only decoded
  std::vector<AddedToken> added;   // in the order of the file
  std::vector<BpeMerge> merges;    // by rank; none results in an added token
  bool ignore_merges = false;
  NormalizerKind normalizer = NormalizerKind::kNone;
  PreTokenizerKind pre_tokenizer = PreTokenizerKind::kDeepSeekV3;
};

/// Reads the text of a tokenizer.json. Throws quant::Error(kBadFile) naming `file` and the field if it is malformed or
/// asks for what Moraine has not: another model than byte-level BPE, an unknown pre-tokenizer or normalizer, added
/// tokens with lstrip, rstrip or single_word.
TokenizerFile parse_tokenizer_file(std::string_view json_text, const std::filesystem::path& file);

/// The token strings a tokenizer_config.json names.
struct SpecialTokenNames {
  std::optional<std::string> bos;
  std::optional<std::string> eos;
  std::optional<std::string> pad;
};

/// Reads bos_token, eos_token and pad_token, each a string, an object with a content, null or absent. Throws
/// quant::Error(kBadFile) if one is something else.
SpecialTokenNames parse_special_token_names(std::string_view json_text, const std::filesystem::path& file);

}  // namespace moraine::runtime
