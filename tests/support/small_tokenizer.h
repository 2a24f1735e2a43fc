#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "quant/json.h"
#include "runtime/byte_alphabet.h"
#include "runtime/pretokenizer.h"
#include "runtime/tokenizer.h"

namespace moraine::testing {

/// The regexes of a kind as tokenizer.json has them.
inline std::vector<std::string> split_regexes(runtime::PreTokenizerKind kind) {
  const std::string tail = R"( ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
  const std::string head = R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|)";
  switch (kind) {
    case runtime::PreTokenizerKind::kQwen2:
      return {head + R"(\p{N}|)" + tail};
    case runtime::PreTokenizerKind::kLlama3:
      return {head + R"(\p{N}{1,3}|)" + tail};
    case runtime::PreTokenizerKind::kDeepSeekV3:
      break;
  }
  return {R"(\p{N}{1,3})", "[\u4E00-\u9FA5\u3040-\u309F\u30A0-\u30FF]+",
          "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\r\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+|"
          " ?[\\p{P}\\p{S}]+[\r\n]*|\\s*[\r\n]+|\\s+(?!\\S)|\\s+"};
}

/// A tokenizer.json to be changed by a test. Ids: 0-255 are the bytes, 256 + k is the result of merge k, then come the
/// added tokens <think>, </think>, <｜User｜>, <｜Assistant｜> and, as the only special one, <｜end▁of▁sentence｜>.
/// The parts of merges are bytes, not in the byte alphabet.
inline quant::Json small_tokenizer_json(runtime::PreTokenizerKind kind,
                                        const std::vector<std::pair<std::string, std::string>>& merges = {}) {
  using quant::Json;
  Json vocab = Json::object();
  int32_t next_id = 0;
  for (; next_id < 256; ++next_id) {
    const char byte = static_cast<char>(next_id);
    vocab[runtime::bytes_to_alphabet({&byte, 1})] = next_id;
  }
  Json merge_list = Json::array();
  for (const auto& [left, right] : merges) {
    vocab.emplace(runtime::bytes_to_alphabet(left + right), next_id++);
    merge_list.push_back({runtime::bytes_to_alphabet(left), runtime::bytes_to_alphabet(right)});
  }
  Json added = Json::array();
  for (const char* content : {"<think>", "</think>", "<｜User｜>", "<｜Assistant｜>", "<｜end▁of▁sentence｜>"}) {
    const bool special = std::string_view(content) == "<｜end▁of▁sentence｜>";
    added.push_back({{"id", next_id++}, {"content", content}, {"special", special}});
  }
  Json splits = Json::array();
  for (const std::string& regex : split_regexes(kind)) {
    splits.push_back({{"type", "Split"}, {"pattern", {{"Regex", regex}}}, {"behavior", "Isolated"}, {"invert", false}});
  }
  splits.push_back({{"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", false}});
  return {{"added_tokens", added},
          {"normalizer", nullptr},
          {"pre_tokenizer", {{"type", "Sequence"}, {"pretokenizers", splits}}},
          {"decoder", {{"type", "ByteLevel"}}},
          {"model", {{"type", "BPE"}, {"ignore_merges", false}, {"vocab", vocab}, {"merges", merge_list}}}};
}

inline runtime::Tokenizer make_tokenizer(const quant::Json& json) {
  return runtime::Tokenizer::from_json(json.dump(), "tokenizer.json");
}

}  // namespace moraine::testing
