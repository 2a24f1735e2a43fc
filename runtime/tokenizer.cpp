#include "runtime/tokenizer.h"

#include <utility>

#include "quant/error.h"
#include "quant/file_io.h"
#include "quant/json.h"
#include "runtime/byte_alphabet.h"
#include "runtime/tokenizer_file.h"
#include "runtime/utf8.h"

namespace moraine::runtime {
namespace {

/// The text of a JSON file, not more than the parser takes.
std::string read_json_text(const std::filesystem::path& file) {
  return quant::read_text(file, quant::JsonLimits{}.max_bytes);
}

std::vector<Token> added_tokens(const TokenizerFile& file) {
  std::vector<Token> tokens;
  tokens.reserve(file.added.size());
  for (const AddedToken& added : file.added) tokens.push_back(added.token);
  return tokens;
}

Vocabulary make_vocabulary(const TokenizerFile& file) {
  // Text reaches listed tokens only, so that no added token comes out of the merges.
  std::vector<Token> unlisted = added_tokens(file);
  unlisted.insert(unlisted.end(), file.unreachable.begin(), file.unreachable.end());
  return Vocabulary(file.vocabulary, unlisted);
}

/// A stretch [begin, end) of a text in which added tokens count.
struct TrustedSpan {
  size_t begin;
  size_t end;
};

}  // namespace

Tokenizer Tokenizer::from_directory(const std::filesystem::path& directory) {
  const std::filesystem::path file = directory / "tokenizer.json";
  const std::filesystem::path config_file = directory / "tokenizer_config.json";
  std::optional<std::string> config_json;
  std::error_code ignored;
  if (std::filesystem::exists(config_file, ignored)) config_json = read_json_text(config_file);
  return from_texts(read_json_text(file), file, config_json, config_file);
}

Tokenizer Tokenizer::from_texts(std::string_view tokenizer_json, const std::filesystem::path& file,
                                const std::optional<std::string>& config_json,
                                const std::filesystem::path& config_file) {
  quant::refuse_lfs_pointer(tokenizer_json, file);
  Tokenizer tokenizer = from_json(tokenizer_json, file);
  if (config_json) {
    quant::refuse_lfs_pointer(*config_json, config_file);
    tokenizer.read_special_tokens(*config_json, config_file);
  }
  return tokenizer;
}

Tokenizer Tokenizer::from_json(std::string_view json_text, const std::filesystem::path& file_for_messages) {
  return Tokenizer(parse_tokenizer_file(json_text, file_for_messages));
}

Tokenizer::Tokenizer(const TokenizerFile& file)
    : bpe_(make_vocabulary(file), file.merges, file.ignore_merges),
      pre_tokenizer_(file.pre_tokenizer),
      normalizer_(file.normalizer),
      added_(added_tokens(file)),
      flags_(static_cast<size_t>(bpe_.vocabulary().size())) {
  for (const AddedToken& added : file.added) {
    flags_[static_cast<size_t>(added.token.id)] = static_cast<uint8_t>(kAdded | (added.special ? kSpecial : 0));
  }
}

void Tokenizer::read_special_tokens(std::string_view config_json, const std::filesystem::path& config_file) {
  const SpecialTokenNames names = parse_special_token_names(config_json, config_file);
  const auto id_of = [&](const std::optional<std::string>& name, const char* field) -> std::optional<int32_t> {
    if (!name) return std::nullopt;
    const auto id = token_id(*name);
    if (id) return id;
    throw quant::Error(quant::ErrorKind::kBadFile, {.what = "names a token that tokenizer.json does not have",
                                                    .file = config_file,
                                                    .item = field,
                                                    .got = quant::printable(*name)});
  };
  special_ = {id_of(names.bos, "bos_token"), id_of(names.eos, "eos_token"), id_of(names.pad, "pad_token")};
}

std::vector<int32_t> Tokenizer::encode(std::string_view text, AddedTokens added) const {
  const TextPiece piece = {std::string(text), added == AddedTokens::kParse};
  return encode(std::span(&piece, 1));
}

std::vector<int32_t> Tokenizer::encode(std::span<const TextPiece> pieces) const {
  std::string text;
  std::vector<TrustedSpan> trusted_spans;  // in order, with text that is not trusted between any two
  for (const TextPiece& piece : pieces) {
    const size_t begin = text.size();
    text += piece.text;
    if (!piece.trusted || piece.text.empty()) continue;
    if (!trusted_spans.empty() && trusted_spans.back().end == begin) {
      trusted_spans.back().end = text.size();
    } else {
      trusted_spans.push_back({begin, text.size()});
    }
  }

  std::vector<int32_t> ids;
  const std::string_view whole = text;
  size_t done = 0;
  for (const TrustedSpan& span : trusted_spans) {
    // Matching before repairing finds the same tokens: their contents are valid UTF-8, and no repair reaches over one.
    size_t from = span.begin;
    while (const auto match = added_.find(whole.substr(0, span.end), from)) {
      encode_ordinary(whole.substr(done, match->begin - done), ids);
      ids.push_back(match->id);
      done = from = match->end;
    }
  }
  encode_ordinary(whole.substr(done), ids);
  return ids;
}

void Tokenizer::encode_ordinary(std::string_view text, std::vector<int32_t>& ids) const {
  if (text.empty()) return;
  std::string changed;
  if (!is_valid_utf8(text)) text = changed = repair_utf8(text);
  if (normalizer_ == NormalizerKind::kNfc) text = changed = normalize_nfc(text);
  for (const std::string_view piece : pre_tokenizer_.split(text)) bpe_.encode(piece, ids);
}

std::string Tokenizer::decode(std::span<const int32_t> ids) const {
  std::string bytes;
  for (const int32_t id : ids) bytes += token_bytes(id);
  return is_valid_utf8(bytes) ? bytes : repair_utf8(bytes);
}

std::optional<int32_t> Tokenizer::token_id(std::string_view added_or_vocab_content) const {
  if (const auto id = added_.id_of(added_or_vocab_content)) return id;
  if (!is_valid_utf8(added_or_vocab_content)) return std::nullopt;
  const auto bytes = alphabet_to_bytes(added_or_vocab_content);
  return bytes ? bpe_.vocabulary().find(*bytes) : std::nullopt;
}

}  // namespace moraine::runtime
