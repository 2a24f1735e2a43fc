#include "tools/gguf_parts.h"

#include <fmt/format.h>
#include <sys/stat.h>

#include <algorithm>
#include <array>
#include <future>

#include "quant/checksum.h"
#include "quant/error.h"
#include "quant/quantize.h"
#include "quant/write_journal.h"
#include "runtime/gguf_tensors.h"
#include "runtime/rope.h"
#include "tools/byte_size.h"
#include "tools/in_order.h"

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
  uint64_t checksum = 0;  ///< XXH3-64 of all three
};

UnpackedExpert unpack(const quant::ExpertLayout& layout, const quant::AlignedBuffer& record) {
  const quant::ExpertView view = quant::expert_view(layout, record.data());
  UnpackedExpert expert;
  quant::ChecksumStream stream;
  const std::array matrices = {&view.gate, &view.up, &view.down};
  for (size_t m = 0; m < matrices.size(); ++m) {
    const quant::PackedView& matrix = *matrices[m];
    expert.matrices[m].resize(tensor_bytes(matrix.type, {matrix.rows, matrix.cols}));
    quant::unpack_matrix(matrix, expert.matrices[m]);
    stream.update(expert.matrices[m]);
  }
  expert.checksum = stream.digest();
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

/// Bytes of a tensor.
struct Range {
  size_t tensor = 0;
  uint64_t offset = 0;
  uint64_t size_bytes = 0;
};

/// What is written and noted in the journal as one: a resident tensor, or an expert's three matrices.
struct Part {
  std::vector<Range> ranges;
  int64_t layer = -1;  ///< of an expert
  int32_t expert = 0;

  uint64_t size_bytes() const {
    uint64_t bytes = 0;
    for (const Range& range : ranges) bytes += range.size_bytes;
    return bytes;
  }
};

/// All parts in the order in which they are written.
std::vector<Part> parts_of(const GgufPlan& plan, const runtime::ModelConfig& config) {
  std::vector<Part> parts;
  for (size_t index = 0; index < plan.resident_count; ++index) {
    parts.push_back({.ranges = {{index, 0, plan.entries[index].info.size_bytes}}});
  }
  size_t first_tensor = plan.resident_count;
  for (int64_t layer = 0; layer < config.num_hidden_layers; ++layer) {
    if (!config.is_moe_layer(layer)) continue;
    for (int32_t expert = 0; expert < config.n_routed_experts; ++expert) {
      Part part{.ranges = {}, .layer = layer, .expert = expert};
      for (size_t m = 0; m < kStacks; ++m) {
        const uint64_t bytes =
            plan.entries[first_tensor + m].info.size_bytes / static_cast<uint64_t>(config.n_routed_experts);
        part.ranges.push_back({first_tensor + m, static_cast<uint64_t>(expert) * bytes, bytes});
      }
      parts.push_back(std::move(part));
    }
    first_tensor += kStacks;
  }
  return parts;
}

/// XXH3-64 of a part's bytes as they stand in the file.
uint64_t checksum_of(const Part& part, const quant::GgufWriter& writer) {
  constexpr uint64_t kPieceBytes = 8u << 20;
  quant::ChecksumStream stream;
  std::vector<std::byte> piece;
  for (const Range& range : part.ranges) {
    for (uint64_t done = 0; done < range.size_bytes; done += piece.size()) {
      piece.resize(std::min(kPieceBytes, range.size_bytes - done));
      writer.read(range.tensor, range.offset + done, piece);
      stream.update(piece);
    }
  }
  return stream.digest();
}

/// Leading parts that an earlier run wrote: those in the journal whose bytes are still the ones that were written.
size_t recognise_parts(const std::vector<Part>& parts, quant::GgufWriter& writer, quant::WriteJournal& journal,
                       const std::function<void(const Part&)>& advance) {
  size_t known = 0;
  const size_t noted = writer.continues() ? std::min(parts.size(), journal.checksums().size()) : 0;
  while (known < noted && checksum_of(parts[known], writer) == journal.checksums()[known]) {
    for (const Range& range : parts[known].ranges) writer.keep(range.tensor, range.size_bytes);
    advance(parts[known++]);
  }
  journal.keep(known);
  return known;
}

/// Bytes that a file takes on the disk, 0 if it does not exist: holes take none.
uint64_t allocated_bytes(const std::filesystem::path& file) {
  struct stat status {};
  return ::stat(file.c_str(), &status) == 0 ? static_cast<uint64_t>(status.st_blocks) * 512 : 0;
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
  const std::vector<Part> parts = parts_of(plan, config);
  std::filesystem::path journal_file = file;
  journal_file += ".journal";
  quant::WriteJournal journal(journal_file, content.identity, parts.size());
  quant::GgufWriter writer(file, metadata, std::move(tensors));
  uint64_t done_bytes = 0;
  const auto advance = [&](const Part& part) {
    done_bytes += part.size_bytes();
    const std::string note = part.layer < 0 ? std::string("resident tensors")
                                            : fmt::format("layer {} of {}", part.layer, config.num_hidden_layers - 1);
    if (progress) progress(done_bytes, plan.total_bytes, note);
  };
  const size_t known = recognise_parts(parts, writer, journal, advance);
  size_t next = std::max(known, plan.resident_count);  // expert to be begun
  InOrder<UnpackedExpert> experts(content.records_in_memory, [&]() -> std::future<UnpackedExpert> {
    if (next == parts.size()) return {};
    const Part& part = parts[next++];
    return std::async(std::launch::async, [&] {
      return unpack(content.layout_of(part.layer), content.make_expert(part.layer, part.expert));
    });
  });
  for (size_t index = known; index < parts.size(); ++index) {
    const Part& part = parts[index];
    if (part.layer < 0) {
      content.write_resident(index, writer);
      journal.append(checksum_of(part, writer));
    } else {
      const UnpackedExpert expert = experts.next();
      for (size_t m = 0; m < kStacks; ++m) {
        writer.write(part.ranges[m].tensor, part.ranges[m].offset, expert.matrices[m]);
      }
      journal.append(expert.checksum);
    }
    advance(part);
  }
  writer.finish();
  journal.remove();
}

void check_gguf_destination(const std::filesystem::path& file, uint64_t size_bytes, const FreeBytes& free_bytes) {
  std::error_code ignored;
  if (std::filesystem::exists(file, ignored)) {
    throw quant::Error(quant::ErrorKind::kUsage,
                       {.what = "the destination exists", .file = file, .action = "choose a new name, or remove it"});
  }
  const std::filesystem::path folder = file.parent_path().empty() ? "." : file.parent_path();
  std::filesystem::path part_file = file;
  part_file += ".part";
  size_bytes -= std::min(size_bytes, allocated_bytes(part_file));
  const uint64_t room_bytes = free_bytes ? free_bytes(folder) : free_disk_bytes(folder);
  if (room_bytes >= size_bytes) return;
  throw quant::Error(quant::ErrorKind::kNotEnough,
                     {.what = fmt::format("the disk has room for {}, the file needs {}", byte_size_text(room_bytes),
                                          byte_size_text(size_bytes)),
                      .file = file,
                      .action = "free some space, or choose another disk"});
}

}  // namespace moraine::tools
