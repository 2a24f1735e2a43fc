#include "runtime/tokenizer_file.h"

#include <fmt/format.h>

#include <array>
#include <unordered_map>
#include <unordered_set>
#include <utility>

#include "quant/error.h"
#include "quant/json.h"
#include "runtime/added_token_matcher.h"
#include "runtime/byte_alphabet.h"

namespace moraine::runtime {
namespace {

using quant::Json;

/// Reads one tokenizer.json; remembers what the parts need to know of each other.
class Reader {
 public:
  Reader(const Json& root, const std::filesystem::path& file) : root_(root), file_(file) {}

  TokenizerFile read() {
    if (!root_.is_object()) fail("", "not a tokenizer.json", "an object", type_of(root_));
    const Json& model = require(root_, "model", "model");
    if (!model.is_object()) fail("model", "has the wrong type", "an object", type_of(model));
    read_model_options(model);
    read_added_tokens();
    read_vocabulary(model);
    read_merges(model);
    read_normalizer();
    read_pre_tokenizer();
    read_decoder();
    return std::move(result_);
  }

 private:
  [[noreturn]] void fail(const std::string& field, const std::string& what, const std::string& expected,
                         const std::string& got, const std::string& action = {}) const {
    throw quant::Error(quant::ErrorKind::kBadFile, {.what = what,
                                                    .file = file_,
                                                    .item = field,
                                                    .expected = expected,
                                                    .got = got.empty() ? got : quant::printable(got),
                                                    .action = action});
  }

  static std::string type_of(const Json& value) { return value.type_name(); }

  const Json& require(const Json& object, const char* key, const std::string& field) const {
    const auto at = object.find(key);
    if (at == object.end()) fail(field, "is missing", "", "");
    return *at;
  }

  /// A member that may be absent or null; null if it is.
  static const Json* find(const Json& object, const char* key) {
    const auto at = object.find(key);
    return at == object.end() || at->is_null() ? nullptr : &*at;
  }

  bool flag(const Json& object, const char* key, const std::string& field, bool if_absent) const {
    const Json* value = find(object, key);
    if (value == nullptr) return if_absent;
    if (!value->is_boolean()) fail(field + "." + key, "has the wrong type", "true or false", type_of(*value));
    return value->get<bool>();
  }

  const std::string& text(const Json& object, const char* key, const std::string& field) const {
    const Json& value = require(object, key, field + "." + key);
    if (!value.is_string()) fail(field + "." + key, "has the wrong type", "a string", type_of(value));
    return value.get_ref<const std::string&>();
  }

  int32_t token_id(const Json& value, const std::string& field) const {
    const std::string expected = fmt::format("an id from 0 to {}", Vocabulary::kMaxTokenId);
    if (!value.is_number_integer()) fail(field, "is not a token id", expected, type_of(value));
    const bool is_in_range =
        value.is_number_unsigned() ? value.get<uint64_t>() <= Vocabulary::kMaxTokenId : value.get<int64_t>() >= 0;
    if (!is_in_range) fail(field, "is not a token id", expected, value.dump());
    return value.get<int32_t>();
  }

  void read_model_options(const Json& model) {
    const std::string& type = text(model, "type", "model");
    if (type != "BPE") fail("model.type", "unknown tokenizer model", "BPE", type);
    for (const char* key : {"continuing_subword_prefix", "end_of_word_suffix"}) {
      const Json* value = find(model, key);
      if (value != nullptr && *value != "") {
        fail(std::string("model.") + key, "is not supported", "null or an empty string", value->dump());
      }
    }
    const Json* dropout = find(model, "dropout");
    if (dropout != nullptr && *dropout != 0) fail("model.dropout", "is not supported", "null", dropout->dump());
    result_.ignore_merges = flag(model, "ignore_merges", "model", false);
  }

  void read_added_tokens() {
    const Json* list = find(root_, "added_tokens");
    if (list == nullptr) return;
    if (!list->is_array()) fail("added_tokens", "has the wrong type", "an array", type_of(*list));
    result_.added.reserve(list->size());
    for (size_t i = 0; i < list->size(); ++i) read_added_token((*list)[i], fmt::format("added_tokens[{}]", i));
  }

  void read_added_token(const Json& entry, const std::string& field) {
    if (!entry.is_object()) fail(field, "has the wrong type", "an object", type_of(entry));
    const std::string& content = text(entry, "content", field);
    if (content.empty() || content.size() > AddedTokenMatcher::kMaxContentBytes) {
      fail(field + ".content", "has a wrong length", fmt::format("1 to {} bytes", AddedTokenMatcher::kMaxContentBytes),
           std::to_string(content.size()));
    }
    for (const char* key : {"lstrip", "rstrip", "single_word"}) {
      if (flag(entry, key, field, false)) fail(field + "." + key, "is not supported", "false", "true");
    }
    const int32_t id = token_id(require(entry, "id", field + ".id"), field + ".id");
    if (!added_ids_.emplace(content, id).second) fail(field + ".content", "appears twice", "", content);
    if (!ids_.insert(id).second) fail(field + ".id", "is used twice", "", std::to_string(id));
    result_.added.push_back({{id, content}, flag(entry, "special", field, false)});
  }

  void read_vocabulary(const Json& model) {
    const Json& vocab = require(model, "vocab", "model.vocab");
    if (!vocab.is_object()) fail("model.vocab", "has the wrong type", "an object", type_of(vocab));
    result_.vocabulary.reserve(vocab.size());
    for (const auto& [written, value] : vocab.items()) {
      const std::string field = "model.vocab." + written;
      const int32_t id = token_id(value, field);
      vocab_ids_.emplace(written, id);
      const auto added = added_ids_.find(written);
      if (added != added_ids_.end()) {  // listed in both places: it is the added token
        if (added->second != id) {
          fail(field, "has another id in added_tokens", std::to_string(added->second), std::to_string(id));
        }
        continue;
      }
      if (!ids_.insert(id).second) fail(field, "has the id of another token", "", std::to_string(id));
      auto bytes = alphabet_to_bytes(written);
      if (bytes && !bytes->empty()) {
        result_.vocabulary.push_back({id, std::move(*bytes)});
      } else {
        result_.unreachable.push_back({id, written});
      }
    }
    require_all_bytes();
  }

  void require_all_bytes() const {
    std::array<bool, 256> seen{};
    for (const Token& token : result_.vocabulary) {
      if (token.bytes.size() == 1) seen[static_cast<unsigned char>(token.bytes[0])] = true;
    }
    for (size_t byte = 0; byte < seen.size(); ++byte) {
      if (seen[byte]) continue;
      fail("model.vocab", "has no ordinary token for a byte", "all 256 bytes in the byte-level alphabet",
           fmt::format("nothing for byte {:#04x}", byte));
    }
  }

  void read_merges(const Json& model) {
    const Json& merges = require(model, "merges", "model.merges");
    if (!merges.is_array()) fail("model.merges", "has the wrong type", "an array", type_of(merges));
    result_.merges.reserve(merges.size());
    std::string merged;
    for (size_t i = 0; i < merges.size(); ++i) {
      const auto [left, right] = merge_parts(merges[i], i);
      merged.assign(left).append(right);
      const BpeMerge merge = {merge_token(left, i), merge_token(right, i), merge_token(merged, i)};
      // Ordinary text must never become an added token, so a merge that would make one does not exist.
      if (!added_ids_.contains(merged)) result_.merges.push_back(merge);
    }
  }

  /// The two strings of a merge, written "a b" or ["a", "b"].
  std::pair<std::string_view, std::string_view> merge_parts(const Json& merge, size_t rank) const {
    if (merge.is_array() && merge.size() == 2 && merge[0].is_string() && merge[1].is_string()) {
      return {merge[0].get_ref<const std::string&>(), merge[1].get_ref<const std::string&>()};
    }
    if (merge.is_string()) {
      const std::string_view both = merge.get_ref<const std::string&>();
      const size_t space = both.find(' ');
      if (space != std::string_view::npos && both.find(' ', space + 1) == std::string_view::npos) {
        return {both.substr(0, space), both.substr(space + 1)};
      }
    }
    fail(fmt::format("model.merges[{}]", rank), "is not a merge", R"("a b" or ["a", "b"])",
         merge.is_string() ? merge.get_ref<const std::string&>() : type_of(merge));
  }

  int32_t merge_token(std::string_view written, size_t rank) const {
    const auto at = vocab_ids_.find(written);
    if (at == vocab_ids_.end()) {
      fail(fmt::format("model.merges[{}]", rank), "needs a token that is not in model.vocab", "", std::string(written));
    }
    return at->second;
  }

  void read_normalizer() {
    const Json* normalizer = find(root_, "normalizer");
    if (normalizer == nullptr) return;
    if (!normalizer->is_object()) fail("normalizer", "has the wrong type", "an object", type_of(*normalizer));
    if (text(*normalizer, "type", "normalizer") != "Sequence") {
      add_normalizer(*normalizer, "normalizer");
      return;
    }
    const Json& list = require(*normalizer, "normalizers", "normalizer.normalizers");
    if (!list.is_array()) fail("normalizer.normalizers", "has the wrong type", "an array", type_of(list));
    for (size_t i = 0; i < list.size(); ++i) add_normalizer(list[i], fmt::format("normalizer.normalizers[{}]", i));
  }

  void add_normalizer(const Json& normalizer, const std::string& field) {
    if (!normalizer.is_object()) fail(field, "has the wrong type", "an object", type_of(normalizer));
    const std::string& type = text(normalizer, "type", field);
    if (type != "NFC") fail(field + ".type", "unknown normalizer", "NFC, or none at all", type);
    result_.normalizer = NormalizerKind::kNfc;
  }

  void read_pre_tokenizer() {
    const std::string name = "pre_tokenizer";
    const Json& pre_tokenizer = require(root_, "pre_tokenizer", name);
    if (!pre_tokenizer.is_object()) fail(name, "has the wrong type", "an object", type_of(pre_tokenizer));
    const std::string& type = text(pre_tokenizer, "type", name);
    if (type != "Sequence") fail_pre_tokenizer(type);
    const Json& list = require(pre_tokenizer, "pretokenizers", name + ".pretokenizers");
    if (!list.is_array() || list.empty()) {
      fail(name + ".pretokenizers", "has the wrong type", "an array of at least one", type_of(list));
    }
    std::vector<std::string> regexes;
    for (size_t i = 0; i + 1 < list.size(); ++i) {
      regexes.push_back(split_regex(list[i], fmt::format("{}.pretokenizers[{}]", name, i)));
    }
    check_byte_level(list.back(), fmt::format("{}.pretokenizers[{}]", name, list.size() - 1));
    const auto kind = find_pre_tokenizer(regexes);
    if (!kind) fail_pre_tokenizer(fmt::format("Split {}", fmt::join(regexes, " then ")));
    result_.pre_tokenizer = *kind;
  }

  [[noreturn]] void fail_pre_tokenizer(const std::string& got) const {
    fail("pre_tokenizer", "unknown pre-tokenizer", "the regexes of DeepSeek-V3, Qwen2 or Llama-3", got,
         "use a model of one of these families");
  }

  std::string split_regex(const Json& split, const std::string& field) const {
    if (!split.is_object()) fail(field, "has the wrong type", "an object", type_of(split));
    if (text(split, "type", field) != "Split") fail_pre_tokenizer(text(split, "type", field));
    if (text(split, "behavior", field) != "Isolated") {
      fail(field + ".behavior", "is not supported", "Isolated", text(split, "behavior", field));
    }
    if (flag(split, "invert", field, false)) fail(field + ".invert", "is not supported", "false", "true");
    const Json& pattern = require(split, "pattern", field + ".pattern");
    if (!pattern.is_object()) fail(field + ".pattern", "has the wrong type", "an object", type_of(pattern));
    return text(pattern, "Regex", field + ".pattern");
  }

  void check_byte_level(const Json& last, const std::string& field) const {
    if (!last.is_object()) fail(field, "has the wrong type", "an object", type_of(last));
    if (text(last, "type", field) != "ByteLevel") fail_pre_tokenizer(text(last, "type", field));
    if (flag(last, "add_prefix_space", field, true)) {
      fail(field + ".add_prefix_space", "is not supported", "false", "true or nothing");
    }
    if (flag(last, "use_regex", field, true)) {
      fail(field + ".use_regex", "is not supported", "false", "true or nothing");
    }
  }

  void read_decoder() const {
    const Json* decoder = find(root_, "decoder");
    if (decoder == nullptr) return;
    if (!decoder->is_object()) fail("decoder", "has the wrong type", "an object", type_of(*decoder));
    const std::string& type = text(*decoder, "type", "decoder");
    if (type != "ByteLevel") fail("decoder.type", "unknown decoder", "ByteLevel", type);
  }

  const Json& root_;
  const std::filesystem::path& file_;
  TokenizerFile result_;
  std::unordered_set<int32_t> ids_;                          // of all tokens so far
  std::unordered_map<std::string_view, int32_t> vocab_ids_;  // as written; views into root_
  std::unordered_map<std::string_view, int32_t> added_ids_;  // by content; views into root_
};

std::optional<std::string> token_name(const Json& config, const char* key, const std::filesystem::path& file) {
  auto value = config.find(key);
  if (value == config.end() || value->is_null()) return std::nullopt;
  const Json* name = &*value;
  if (name->is_object()) {
    const auto content = name->find("content");
    if (content != name->end()) name = &*content;
  }
  if (!name->is_string()) {
    throw quant::Error(quant::ErrorKind::kBadFile, {.what = "is not a token",
                                                    .file = file,
                                                    .item = key,
                                                    .expected = "a string, or an object with a content",
                                                    .got = value->type_name()});
  }
  return name->get<std::string>();
}

}  // namespace

TokenizerFile parse_tokenizer_file(std::string_view json_text, const std::filesystem::path& file) {
  const Json root = quant::parse_json(json_text, file);
  return Reader(root, file).read();
}

SpecialTokenNames parse_special_token_names(std::string_view json_text, const std::filesystem::path& file) {
  const Json config = quant::parse_json(json_text, file);
  if (!config.is_object()) {
    throw quant::Error(
        quant::ErrorKind::kBadFile,
        {.what = "not a tokenizer_config.json", .file = file, .expected = "an object", .got = config.type_name()});
  }
  return {token_name(config, "bos_token", file), token_name(config, "eos_token", file),
          token_name(config, "pad_token", file)};
}

}  // namespace moraine::runtime
