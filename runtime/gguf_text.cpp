#include "runtime/gguf_text.h"

#include <fmt/format.h>

#include <array>

#include "quant/error.h"
#include "quant/json.h"
#include "runtime/gguf_keys.h"
#include "runtime/pretokenizer.h"

namespace moraine::runtime {
namespace {

using quant::Json;

constexpr const char* kTokens = "tokenizer.ggml.tokens";
constexpr const char* kTypes = "tokenizer.ggml.token_type";

/// Values of tokenizer.ggml.token_type.
enum TokenType : int64_t { kNormal = 1, kUnknown = 2, kControl = 3, kUserDefined = 4, kUnused = 5, kByte = 6 };

struct PreTokenizerName {
  std::string_view name;
  PreTokenizerKind kind;
};
constexpr std::array kPreTokenizers = {
    PreTokenizerName{"deepseek-v3", PreTokenizerKind::kDeepSeekV3},
    PreTokenizerName{"qwen2", PreTokenizerKind::kQwen2},
    PreTokenizerName{"deepseek-r1-qwen", PreTokenizerKind::kQwen2},
    PreTokenizerName{"llama-bpe", PreTokenizerKind::kLlama3},
    PreTokenizerName{"llama3", PreTokenizerKind::kLlama3},
    PreTokenizerName{"llama-v3", PreTokenizerKind::kLlama3},
};

std::optional<PreTokenizerKind> pre_tokenizer_of(GgufKeys& keys, const quant::GgufArray& tokens) {
  const std::string name = keys.text("tokenizer.ggml.pre").value_or("none");
  for (const PreTokenizerName& known : kPreTokenizers) {
    if (known.name == name) return known.kind;
  }
  // Early files of V3 and R1 say so; the model of that name has 100,000 tokens and other rules.
  constexpr uint64_t kTokensOfV3 = 128000;
  if (name == "deepseek-llm" && tokens.count >= kTokensOfV3) return PreTokenizerKind::kDeepSeekV3;
  keys.fault("tokenizer.ggml.pre",
             fmt::format("'{}' is not supported; this version knows deepseek-v3, qwen2, deepseek-r1-qwen and llama-bpe",
                         quant::printable(name)));
  return std::nullopt;
}

/// `text` as a JSON string. Throws nlohmann's exception if it is not UTF-8.
std::string quoted(std::string_view text) {
  return Json(text).dump();
}

std::string regexes_json(PreTokenizerKind kind) {
  Json list = Json::array();
  for (const std::string_view regex : pre_tokenizer_regexes(kind)) {
    list.push_back({{"type", "Split"}, {"pattern", {{"Regex", regex}}}, {"behavior", "Isolated"}, {"invert", false}});
  }
  list.push_back({{"type", "ByteLevel"}, {"add_prefix_space", false}, {"trim_offsets", true}, {"use_regex", false}});
  return Json{{"type", "Sequence"}, {"pretokenizers", std::move(list)}}.dump();
}

/// Joins JSON values with commas, without a document in memory: a vocabulary is large, and an ordered object's keys are
/// looked for one by one.
class JsonList {
 public:
  void add(const std::string& item) {
    if (!text_.empty()) text_ += ",\n";
    text_ += item;
  }
  const std::string& text() const { return text_; }

 private:
  std::string text_;
};

std::string tokenizer_json(const quant::GgufArray& tokens, const quant::GgufArray& types,
                           const quant::GgufArray& merges, PreTokenizerKind kind) {
  JsonList added, vocabulary, pairs;
  for (size_t id = 0; id < tokens.count; ++id) {
    const int64_t type = types.integer(id).value_or(kNormal);
    if (type == kUnused) continue;
    const std::string content = quoted(tokens.text(id));
    if (type == kControl || type == kUserDefined) {
      added.add(fmt::format(R"({{"id":{},"content":{},"special":{}}})", id, content, type == kControl));
    } else {
      vocabulary.add(fmt::format("{}:{}", content, id));
    }
  }
  for (size_t rank = 0; rank < merges.count; ++rank) pairs.add(quoted(merges.text(rank)));
  const char* normalizer = kind == PreTokenizerKind::kQwen2 ? R"({"type":"NFC"})" : "null";
  return fmt::format(
      R"({{"version":"1.0","added_tokens":[{}],"normalizer":{},"pre_tokenizer":{},"decoder":{{"type":"ByteLevel"}},)"
      "\n"
      R"("model":{{"type":"BPE","ignore_merges":{},"vocab":{{{}}},"merges":[{}]}}}})"
      "\n",
      added.text(), normalizer, regexes_json(kind), kind == PreTokenizerKind::kLlama3, vocabulary.text(), pairs.text());
}

/// Runs `make`; what JSON cannot hold is a fault of the file.
template <typename Make>
std::string made_from(const quant::Gguf& gguf, const Make& make) {
  try {
    return make();
  } catch (const nlohmann::json::exception&) {
    throw quant::Error(quant::ErrorKind::kBadFile, {.what = "a text of the tokenizer is not valid UTF-8",
                                                    .file = gguf.files().front(),
                                                    .action = "download the file again"});
  }
}

/// The token whose id the key holds; nothing if there is no such key, a fault if there is no such token.
std::optional<std::string> token_named_by(GgufKeys& keys, std::string_view key, const quant::GgufArray& tokens) {
  if (!keys.has(key)) return std::nullopt;
  const int64_t id = keys.integer(key);
  if (id >= 0 && static_cast<uint64_t>(id) < tokens.count) return std::string(tokens.text(static_cast<size_t>(id)));
  keys.fault(key, fmt::format("{} is no token; there are {}", id, tokens.count));
  return std::nullopt;
}

}  // namespace

std::string gguf_tokenizer_json(const quant::Gguf& gguf) {
  GgufKeys keys(gguf.metadata(), {});
  const std::string model = keys.text("tokenizer.ggml.model").value_or("none");
  if (model != "gpt2") {
    throw quant::Error(quant::ErrorKind::kBadFile,
                       {.what = model == "none" ? "the file has no tokenizer" : "a tokenizer that is not supported",
                        .file = gguf.files().front(),
                        .item = "tokenizer.ggml.model",
                        .expected = "gpt2 (byte-level BPE)",
                        .got = quant::printable(model)});
  }
  const quant::GgufArray* tokens = keys.strings(kTokens);
  const quant::GgufArray* types = keys.integers(kTypes);
  const quant::GgufArray* merges = keys.strings("tokenizer.ggml.merges");
  if (tokens != nullptr && types != nullptr && types->count != tokens->count) {
    keys.fault(kTypes, fmt::format("has {} entries for {} tokens", types->count, tokens->count));
  }
  const auto kind = tokens != nullptr ? pre_tokenizer_of(keys, *tokens) : std::nullopt;
  keys.check(gguf.files().front());
  return made_from(gguf, [&] { return tokenizer_json(*tokens, *types, *merges, *kind); });
}

std::string gguf_tokenizer_config_json(const quant::Gguf& gguf) {
  GgufKeys keys(gguf.metadata(), {});
  Json config = Json::object();
  if (const quant::GgufArray* tokens = keys.strings(kTokens)) {
    constexpr const char* kNames[][2] = {{"bos_token", "tokenizer.ggml.bos_token_id"},
                                         {"eos_token", "tokenizer.ggml.eos_token_id"},
                                         {"pad_token", "tokenizer.ggml.padding_token_id"}};
    for (const auto& [name, key] : kNames) {
      if (const auto token = token_named_by(keys, key, *tokens)) config[name] = *token;
    }
  }
  config["add_bos_token"] = keys.boolean_or("tokenizer.ggml.add_bos_token", true);
  config["add_eos_token"] = keys.boolean_or("tokenizer.ggml.add_eos_token", false);
  if (const auto source = keys.text("tokenizer.chat_template")) config["chat_template"] = *source;
  keys.check(gguf.files().front());
  return made_from(gguf, [&] { return config.dump(2) + "\n"; });
}

std::string gguf_generation_config_json(const quant::Gguf& gguf) {
  GgufKeys keys(gguf.metadata(), {});
  Json config = Json::object();
  Json ends = Json::array();
  for (const char* key :
       {"tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id"}) {
    if (keys.has(key)) ends.push_back(keys.integer(key));
  }
  if (!ends.empty()) config["eos_token_id"] = std::move(ends);
  constexpr const char* kNumbers[][2] = {{"temperature", "general.sampling.temp"},
                                         {"top_p", "general.sampling.top_p"},
                                         {"min_p", "general.sampling.min_p"}};
  for (const auto& [name, key] : kNumbers) {
    if (keys.has(key)) config[name] = keys.number(key);
  }
  if (keys.has("general.sampling.top_k")) config["top_k"] = keys.integer("general.sampling.top_k");
  keys.check(gguf.files().front());
  return config.dump(2) + "\n";
}

}  // namespace moraine::runtime
