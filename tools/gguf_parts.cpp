#include "tools/gguf_parts.h"

#include <fmt/format.h>

#include <array>
#include <deque>
#include <future>

#include "quant/error.h"
#include "quant/quantize.h"
#include "runtime/gguf_tensors.h"
#include "runtime/rope.h"
#include "tools/byte_size.h"

namespace moraine::tools {
namespace {

constexpr std::string_view kKvB = "kv_b_proj.weight";
constexpr size_t kStacks = 3;  // gate, up and down

uint64_t tensor_bytes(quant::DType type, const std::vector<int64_t>& shape) {
  uint64_t bytes = quant::row_bytes(type, shape.back());
  for (size_t i = 0; i + 1 < shape.size(); ++i) bytes *= static_cast<uint64_t>(shape[i]);
  return bytes;
}

GgufEntry entry(const runtime::ResidentTensor& tensor, quant::DType type, std::vector<int64_t> shape) {
  const auto name = runtime::gguf_tensor_name(tensor.name);
  MORAINE_CHECK(name.has_value());
  const uint64_t size_bytes = tensor_bytes(type, shape);
  return {.info = {.name = *name, .dtype = type, .shape = std::move(shape), .size_bytes = size_bytes},
          .resident = tensor};
}

/// An expert's three matrices as files have them.
struct UnpackedExpert {
  std::array<std::vector<std::byte>, kStacks> matrices;
};

UnpackedExpert unpack(const quant::ExpertLayout& layout, const quant::AlignedBuffer& record) {
  const quant::ExpertView view = quant::expert_view(layout, record.data());
  UnpackedExpert expert;
  const std::array matrices = {&view.gate, &view.up, &view.down};
  for (size_t m = 0; m < matrices.size(); ++m) {
    const quant::PackedView& matrix = *matrices[m];
    expert.matrices[m].resize(tensor_bytes(matrix.type, {matrix.rows, matrix.cols}));
    quant::unpack_matrix(matrix, expert.matrices[m]);
  }
  return expert;
}

/// All resident tensors of a model in the order of the walk through it.
std::vector<GgufEntry> resident_entries(const runtime::ModelConfig& config, const GgufTypeOf& type_of) {
  std::vector<GgufEntry> entries;
  const int64_t heads = config.num_attention_heads, latent = config.kv_lora_rank;
  for (const runtime::ResidentTensor& tensor : runtime::resident_tensors(config)) {
    if (tensor.cols == 0) {
      entries.push_back(entry(tensor, quant::DType::kF32, {tensor.rows}));
    } else if (tensor.name.ends_with("mlp.gate.weight")) {
      entries.push_back(entry(tensor, quant::DType::kF32, {tensor.rows, tensor.cols}));
    } else if (tensor.name.ends_with(kKvB)) {
      runtime::ResidentTensor half = tensor;
      const std::string prefix = tensor.name.substr(0, tensor.name.size() - kKvB.size());
      half.name = prefix + "k_b_proj.weight";
      half.rows = heads * latent;
      half.cols = config.qk_nope_head_dim;
      entries.push_back(entry(half, type_of(half), {heads, latent, half.cols}));
      half.name = prefix + "v_b_proj.weight";
      half.rows = heads * config.v_head_dim;
      half.cols = latent;
      entries.push_back(entry(half, type_of(half), {heads, config.v_head_dim, latent}));
    } else {
      entries.push_back(entry(tensor, type_of(tensor), {tensor.rows, tensor.cols}));
    }
  }
  if (config.rope_scaling.type == runtime::RopeScaling::Type::kLlama3) {
    const int64_t pairs = config.rope_dim() / 2;
    const auto size_bytes = static_cast<uint64_t>(pairs) * sizeof(float);
    entries.push_back(
        {.info = {.name = kRopeFactors, .dtype = quant::DType::kF32, .shape = {pairs}, .size_bytes = size_bytes},
         .resident = {.name = kRopeFactors, .rows = pairs}});
  }
  return entries;
}

/// gate, up and down of all experts of a layer, as three stacks.
std::vector<GgufEntry> expert_entries(int64_t layer, int64_t n_experts, const quant::ExpertLayout& layout) {
  std::vector<GgufEntry> entries;
  const auto add = [&](const char* name, const quant::MatrixDesc& matrix) {
    const std::vector<int64_t> shape = {n_experts, matrix.rows, matrix.cols};
    entries.push_back({.info = {.name = fmt::format("blk.{}.{}_exps.weight", layer, name),
                                .dtype = matrix.type,
                                .shape = shape,
                                .size_bytes = tensor_bytes(matrix.type, shape)},
                       .resident = {}});
  };
  add("ffn_gate", layout.gate);
  add("ffn_up", layout.up);
  add("ffn_down", layout.down);
  return entries;
}

/// Writes the stacks of a layer's experts, of which the first is tensor `first_tensor`.
void write_experts(quant::GgufWriter& writer, size_t first_tensor, int64_t layer, int64_t n_experts,
                   const GgufContent& content, const std::function<void(uint64_t bytes)>& advance) {
  const quant::ExpertLayout layout = content.layout_of(layer);
  // As in write_expert_file: side by side, written in order, no more in memory than there are threads.
  const auto in_flight = static_cast<size_t>(std::max(1, content.threads));
  std::deque<std::future<UnpackedExpert>> coming;
  int32_t begun = 0;
  for (int32_t expert = 0; expert < n_experts; ++expert) {
    while (begun < n_experts && coming.size() < in_flight) {
      coming.push_back(std::async(
          std::launch::async, [&](int32_t e) { return unpack(layout, content.make_expert(layer, e)); }, begun++));
    }
    const UnpackedExpert unpacked = coming.front().get();
    coming.pop_front();
    uint64_t bytes = 0;
    for (size_t m = 0; m < unpacked.matrices.size(); ++m) {
      const std::vector<std::byte>& matrix = unpacked.matrices[m];
      writer.write(first_tensor + m, static_cast<uint64_t>(expert) * matrix.size(), matrix);
      bytes += matrix.size();
    }
    advance(bytes);
  }
}

}  // namespace

std::vector<float> gguf_rope_factors(const runtime::ModelConfig& config) {
  runtime::ModelConfig unscaled = config;
  unscaled.rope_scaling = {};
  const runtime::RopeTable scaled_table(config), table(unscaled);
  std::vector<float> factors;
  for (size_t pair = 0; pair < table.frequencies().size(); ++pair) {
    factors.push_back(static_cast<float>(table.frequencies()[pair] / scaled_table.frequencies()[pair]));
  }
  return factors;
}

int64_t gguf_row(const runtime::ModelConfig& config, const runtime::ResidentTensor& tensor, int64_t row) {
  const bool turned = tensor.name.ends_with(".q_proj.weight") || tensor.name.ends_with(".k_proj.weight");
  if (!turned || config.model_type != "llama" || config.rope_pairs != runtime::RopePairs::kHalves) return row;
  const int64_t half = config.head_dim / 2, in_head = row % config.head_dim;
  return row - in_head + 2 * (in_head % half) + in_head / half;
}

GgufPlan plan_gguf(const runtime::ModelConfig& config, const GgufTypeOf& type_of, const GgufLayoutOf& layout_of) {
  GgufPlan plan{.entries = resident_entries(config, type_of)};
  plan.resident_count = plan.entries.size();
  for (int64_t layer = 0; layer < config.num_hidden_layers; ++layer) {
    if (!config.is_moe_layer(layer)) continue;
    const auto stacks = expert_entries(layer, config.n_routed_experts, layout_of(layer));
    plan.entries.insert(plan.entries.end(), stacks.begin(), stacks.end());
  }
  for (const GgufEntry& entry : plan.entries) plan.total_bytes += entry.info.size_bytes;
  return plan;
}

void write_gguf(const std::filesystem::path& file, const quant::GgufWriter::Metadata& metadata, const GgufPlan& plan,
                const runtime::ModelConfig& config, const GgufContent& content, const GgufProgress& progress) {
  std::vector<quant::TensorInfo> tensors;
  for (const GgufEntry& entry : plan.entries) tensors.push_back(entry.info);
  quant::GgufWriter writer(file, metadata, std::move(tensors));
  uint64_t done_bytes = 0;
  const auto advance = [&](uint64_t bytes, const std::string& note) {
    done_bytes += bytes;
    if (progress) progress(done_bytes, plan.total_bytes, note);
  };
  for (size_t index = 0; index < plan.resident_count; ++index) {
    content.write_resident(index, writer);
    advance(plan.entries[index].info.size_bytes, "resident tensors");
  }
  size_t first_tensor = plan.resident_count;
  for (int64_t layer = 0; layer < config.num_hidden_layers; ++layer) {
    if (!config.is_moe_layer(layer)) continue;
    const std::string note = fmt::format("layer {} of {}", layer, config.num_hidden_layers - 1);
    write_experts(writer, first_tensor, layer, config.n_routed_experts, content,
                  [&](uint64_t bytes) { advance(bytes, note); });
    first_tensor += kStacks;
  }
  writer.finish();
}

void check_gguf_destination(const std::filesystem::path& file, uint64_t size_bytes, const FreeBytes& free_bytes) {
  std::error_code ignored;
  if (std::filesystem::exists(file, ignored)) {
    throw quant::Error(quant::ErrorKind::kUsage,
                       {.what = "the destination exists", .file = file, .action = "choose a new name, or remove it"});
  }
  const std::filesystem::path folder = file.parent_path().empty() ? "." : file.parent_path();
  const uint64_t room_bytes = free_bytes ? free_bytes(folder) : free_disk_bytes(folder);
  if (room_bytes >= size_bytes) return;
  throw quant::Error(quant::ErrorKind::kNotEnough,
                     {.what = fmt::format("the disk has room for {}, the file needs {}", byte_size_text(room_bytes),
                                          byte_size_text(size_bytes)),
                      .file = file,
                      .action = "free some space, or choose another disk"});
}

}  // namespace moraine::tools
