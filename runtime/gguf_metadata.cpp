#include "runtime/gguf_metadata.h"

#include <fmt/format.h>

#include <array>

#include "quant/error.h"
#include "runtime/byte_alphabet.h"
#include "runtime/chat_template.h"
#include "runtime/model_text.h"
#include "runtime/tokenizer_file.h"

namespace moraine::runtime {
namespace {

using quant::GgufArray;
using quant::GgufValue;
using Metadata = quant::GgufWriter::Metadata;

/// general.file_type: what most of a file's weights are stored as (llama.cpp's enum llama_ftype).
uint32_t file_type(quant::DType type) {
  using quant::DType;
  struct Entry {
    DType type;
    uint32_t number;
  };
  constexpr std::array kNumbers = {
      Entry{DType::kF32, 0},      Entry{DType::kF16, 1},     Entry{DType::kQ4_0, 2},     Entry{DType::kQ4_1, 3},
      Entry{DType::kQ8_0, 7},     Entry{DType::kQ5_0, 8},    Entry{DType::kQ5_1, 9},     Entry{DType::kQ2_K, 10},
      Entry{DType::kQ3_K, 12},    Entry{DType::kQ4_K, 15},   Entry{DType::kQ5_K, 17},    Entry{DType::kQ6_K, 18},
      Entry{DType::kIQ2_XXS, 19}, Entry{DType::kIQ2_XS, 20}, Entry{DType::kIQ3_XXS, 23}, Entry{DType::kIQ1_S, 24},
      Entry{DType::kIQ4_NL, 25},  Entry{DType::kIQ3_S, 26},  Entry{DType::kIQ2_S, 28},   Entry{DType::kIQ4_XS, 30},
      Entry{DType::kIQ1_M, 31},   Entry{DType::kBF16, 32},
  };
  for (const Entry& entry : kNumbers) {
    if (entry.type == type) return entry.number;
  }
  return 0;
}

/// Fills the list with keys of one architecture.
class Keys {
 public:
  Keys(Metadata& list, std::string architecture) : list_(list), prefix_(std::move(architecture) + ".") {}

  void u32(const char* key, int64_t value) { add(key, GgufValue::u32(static_cast<uint32_t>(value))); }
  void f32(const char* key, double value) { add(key, GgufValue::f32(static_cast<float>(value))); }
  void boolean(const char* key, bool value) { add(key, GgufValue::boolean(value)); }
  void string(const char* key, const std::string& value) { add(key, GgufValue::string(value)); }

 private:
  void add(const char* key, GgufValue value) { list_.emplace_back(prefix_ + key, std::move(value)); }

  Metadata& list_;
  std::string prefix_;
};

void add_yarn(const RopeScaling& scaling, Keys& keys) {
  if (scaling.type != RopeScaling::Type::kYarn) return;
  keys.string("rope.scaling.type", "yarn");
  keys.f32("rope.scaling.factor", scaling.factor);
  keys.u32("rope.scaling.original_context_length", scaling.original_max_position_embeddings);
  keys.f32("rope.scaling.yarn_log_multiplier", 0.1 * scaling.mscale_all_dim);
  // What every published model has is left out.
  const RopeScaling usual;
  if (scaling.beta_fast != usual.beta_fast) keys.f32("rope.scaling.yarn_beta_fast", scaling.beta_fast);
  if (scaling.beta_slow != usual.beta_slow) keys.f32("rope.scaling.yarn_beta_slow", scaling.beta_slow);
}

/// What every architecture has.
void add_common(const ModelConfig& model, Keys& keys) {
  keys.u32("block_count", model.num_hidden_layers);
  keys.u32("context_length", model.max_position_embeddings);
  keys.u32("embedding_length", model.hidden_size);
  keys.u32("feed_forward_length", model.intermediate_size);
  keys.u32("vocab_size", model.vocab_size);
  keys.u32("attention.head_count", model.num_attention_heads);
  keys.f32("attention.layer_norm_rms_epsilon", model.rms_norm_eps);
  keys.f32("rope.freq_base", model.rope_theta);
  keys.u32("rope.dimension_count", model.rope_dim());
}

void add_dense(const ModelConfig& model, Keys& keys) {
  keys.u32("attention.head_count_kv", model.num_key_value_heads);
  keys.u32("attention.key_length", model.head_dim);
  keys.u32("attention.value_length", model.head_dim);
}

void add_deepseek(const ModelConfig& model, Keys& keys) {
  keys.u32("leading_dense_block_count", model.first_k_dense_replace);
  keys.u32("expert_count", model.n_routed_experts);
  keys.u32("expert_used_count", model.num_experts_per_tok);
  keys.u32("expert_shared_count", model.n_shared_experts);
  keys.u32("expert_feed_forward_length", model.moe_intermediate_size);
  keys.u32("expert_gating_func", model.scoring_func == ScoringFunc::kSigmoid ? 2 : 1);
  if (model.n_group > 1) {
    keys.u32("expert_group_count", model.n_group);
    keys.u32("expert_group_used_count", model.topk_group);
  }
  keys.f32("expert_weights_scale", model.routed_scaling_factor);
  keys.boolean("expert_weights_norm", model.norm_topk_prob);
  keys.u32("attention.head_count_kv", 1);  // of absorbed attention, which the _mla keys belong to
  if (model.q_lora_rank > 0) keys.u32("attention.q_lora_rank", model.q_lora_rank);
  keys.u32("attention.kv_lora_rank", model.kv_lora_rank);
  keys.u32("attention.key_length", model.latent_width());
  keys.u32("attention.value_length", model.kv_lora_rank);
  keys.u32("attention.key_length_mla", model.qk_head_dim());
  keys.u32("attention.value_length_mla", model.v_head_dim);
  add_yarn(model.rope_scaling, keys);
}

/// As llama.cpp's converter sees it: such tokens control the conversation whatever tokenizer.json calls them.
bool looks_like_control(std::string_view text) {
  return (text.starts_with("<|") && text.ends_with("|>")) || (text.starts_with("<｜") && text.ends_with("｜>"));
}

/// What `tokenizer.ggml.pre` calls it.
const char* pre_tokenizer_name(PreTokenizerKind kind) {
  switch (kind) {
    case PreTokenizerKind::kDeepSeekV3:
      return "deepseek-v3";
    case PreTokenizerKind::kQwen2:
      return "deepseek-r1-qwen";
    case PreTokenizerKind::kLlama3:
      return "llama-bpe";
  }
  MORAINE_CHECK(false);
  return "";
}

void add_vocabulary(const TokenizerFile& file, int64_t vocab_size, Metadata& list) {
  enum Type : int32_t { kNormal = 1, kControl = 3, kUserDefined = 4, kUnused = 5 };
  std::vector<std::string> tokens(static_cast<size_t>(vocab_size));
  std::vector<int32_t> types(tokens.size(), kUnused);
  const auto set = [&](int32_t id, std::string text, Type type) {
    tokens[static_cast<size_t>(id)] = std::move(text);
    types[static_cast<size_t>(id)] = type;
  };
  for (const Token& token : file.vocabulary) set(token.id, bytes_to_alphabet(token.bytes), kNormal);
  for (const Token& token : file.unreachable) set(token.id, token.bytes, kNormal);
  for (const AddedToken& added : file.added) {
    const std::string& text = added.token.bytes;
    set(added.token.id, text, added.special || looks_like_control(text) ? kControl : kUserDefined);
  }
  for (size_t id = 0; id < tokens.size(); ++id) {
    if (types[id] == kUnused) tokens[id] = fmt::format("[PAD{}]", id);
  }
  std::vector<std::string> merges;
  for (const BpeMerge& merge : file.merges) {
    merges.push_back(
        fmt::format("{} {}", tokens[static_cast<size_t>(merge.left)], tokens[static_cast<size_t>(merge.right)]));
  }
  list.emplace_back("tokenizer.ggml.model", GgufValue::string("gpt2"));
  list.emplace_back("tokenizer.ggml.pre", GgufValue::string(pre_tokenizer_name(file.pre_tokenizer)));
  list.emplace_back("tokenizer.ggml.tokens", GgufValue::array(GgufArray::of_strings(tokens)));
  list.emplace_back("tokenizer.ggml.token_type", GgufValue::array(GgufArray::of_i32(types)));
  list.emplace_back("tokenizer.ggml.merges", GgufValue::array(GgufArray::of_strings(merges)));
}

void add_special_tokens(const ModelText& text, Metadata& list) {
  const auto add = [&](const char* key, std::optional<int32_t> id) {
    if (id) list.emplace_back(key, GgufValue::u32(static_cast<uint32_t>(*id)));
  };
  const SpecialTokens& special = text.tokenizer.special();
  add("tokenizer.ggml.bos_token_id", special.bos);
  const std::optional<int32_t> eos = special.eos ? special.eos : std::optional(text.stop_tokens.front());
  add("tokenizer.ggml.eos_token_id", eos);
  // A second token that ends answers is the end of a turn in GGUF's words.
  for (const int32_t stop : text.stop_tokens) {
    if (stop == *eos) continue;
    add("tokenizer.ggml.eot_token_id", stop);
    break;
  }
  add("tokenizer.ggml.padding_token_id", special.pad);
  list.emplace_back("tokenizer.ggml.add_bos_token", GgufValue::boolean(true));
  list.emplace_back("tokenizer.ggml.add_eos_token", GgufValue::boolean(false));
}

void add_sampling(const SamplingOptions& sampling, Metadata& list) {
  list.emplace_back("general.sampling.temp", GgufValue::f32(static_cast<float>(sampling.temperature)));
  list.emplace_back("general.sampling.top_p", GgufValue::f32(static_cast<float>(sampling.top_p)));
  list.emplace_back("general.sampling.top_k", GgufValue::i32(sampling.top_k));
  list.emplace_back("general.sampling.min_p", GgufValue::f32(static_cast<float>(sampling.min_p)));
}

}  // namespace

quant::GgufWriter::Metadata gguf_metadata(const ModelSource& source, const std::string& name, quant::DType experts) {
  const ModelConfig model = source.config();
  const ModelText text = ModelText::from_source(source, model);
  const std::string architecture = model.is_latent() ? "deepseek2" : model.model_type;
  Metadata list;
  list.emplace_back("general.architecture", GgufValue::string(architecture));
  list.emplace_back("general.type", GgufValue::string("model"));
  list.emplace_back("general.name", GgufValue::string(name));
  list.emplace_back("general.file_type", GgufValue::u32(file_type(experts)));
  list.emplace_back("general.quantization_version", GgufValue::u32(2));
  if (source.text("generation_config.json")) add_sampling(text.default_sampling, list);
  Keys keys(list, architecture);
  add_common(model, keys);
  if (model.is_latent()) {
    add_deepseek(model, keys);
  } else {
    add_dense(model, keys);
  }
  const std::string tokenizer = source.text("tokenizer.json").value_or("");
  add_vocabulary(parse_tokenizer_file(tokenizer, source.text_file("tokenizer.json")), model.vocab_size, list);
  add_special_tokens(text, list);
  const auto chat =
      ChatTemplate::source_in_texts(source.text("tokenizer_config.json"), source.text_file("tokenizer_config.json"),
                                    source.text("chat_template.jinja"));
  if (chat) list.emplace_back("tokenizer.chat_template", GgufValue::string(*chat));
  return list;
}

}  // namespace moraine::runtime
