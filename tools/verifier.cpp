#include "tools/verifier.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <map>

#include "quant/block_check.h"
#include "quant/checksum.h"
#include "quant/expert_pack.h"
#include "quant/file_io.h"
#include "quant/safetensors.h"
#include "runtime/expert_source.h"
#include "runtime/model_source.h"
#include "runtime/model_text.h"
#include "runtime/weight_loader.h"
#include "tools/record_reader.h"

namespace moraine::tools {
namespace {

namespace fs = std::filesystem;
using quant::DType;

constexpr uint64_t kPieceBytes = 8u << 20;

/// True for a pattern of sign, exponent and fraction whose exponent bits are all ones: infinity or NaN.
template <typename Bits>
bool is_usable(Bits bits, Bits exponent_mask, bool positive) {
  if ((bits & exponent_mask) == exponent_mask) return false;
  constexpr auto kSign = static_cast<Bits>(Bits{1} << (8 * sizeof(Bits) - 1));
  return !positive || ((bits & kSign) == 0 && bits != 0);
}

template <typename Bits>
int64_t first_bad(std::span<const std::byte> bytes, Bits exponent_mask, bool positive) {
  for (size_t at = 0; at + sizeof(Bits) <= bytes.size(); at += sizeof(Bits)) {
    Bits bits;
    std::memcpy(&bits, bytes.data() + at, sizeof bits);
    if (!is_usable(bits, exponent_mask, positive)) return static_cast<int64_t>(at);
  }
  return -1;
}

/// Collects what goes wrong in one pass over a model.
class Verification {
 public:
  Verification(const runtime::ModelSource& source, VerifyProgress progress)
      : source_(source), directory_(source.path()), progress_(std::move(progress)) {}

  VerifyReport pack();
  VerifyReport plain();

 private:
  /// Runs a step; an Error it throws is a fault of the model and the next step follows all the same.
  template <typename Step>
  void attempt(const Step& step) {
    try {
      step();
    } catch (const quant::Error& fault) {
      report_.add(fault);
    }
  }

  void advance(uint64_t bytes, const std::string& note) {
    report_.bytes_read += bytes;
    if (progress_) progress_(std::min(report_.bytes_read, total_bytes_), total_bytes_, note);
  }

  /// Everything about the model that loading would refuse.
  void check_structure();
  void check_records(const quant::PackIndex& index);
  void check_tensor_sums(const quant::PackIndex& index);
  void check_file_sums(const quant::PackIndex& index);
  void check_sum(std::string what, const fs::path& file, const std::string& item, uint64_t expected, uint64_t got,
                 std::optional<uint64_t> offset = {}) const;
  uint64_t tensor_sum(const quant::Checkpoint& checkpoint, const quant::TensorInfo& tensor);
  void check_numbers(const fs::path& file, int descriptor, const quant::TensorInfo& tensor);

  const runtime::ModelSource& source_;
  fs::path directory_;
  VerifyProgress progress_;
  VerifyReport report_;
  uint64_t total_bytes_ = 0;
};

void Verification::check_structure() {
  attempt([&] {
    const runtime::ModelConfig config = source_.config();
    attempt([&] { (void)runtime::ModelText::from_source(source_, config); });
    const quant::Checkpoint checkpoint = source_.checkpoint();
    attempt([&] { (void)runtime::resident_bytes(checkpoint, config); });
    attempt([&] { (void)runtime::open_expert_source(checkpoint, config, std::nullopt); });
  });
}

VerifyReport Verification::pack() {
  const quant::PackIndex index = quant::PackIndex::read(directory_);
  std::error_code ignored;
  for (const quant::PackedLayer& layer : index.layers)
    total_bytes_ += layer.checksums.size() * layer.layout.record_bytes;
  for (const auto& [name, sum] : index.file_checksums) {
    const uint64_t size_bytes = fs::file_size(directory_ / name, ignored);
    // Weight files are read twice: by tensor, to name the bad one, and as a whole, for the bytes between tensors.
    if (!ignored) total_bytes_ += name.ends_with(".safetensors") ? 2 * size_bytes : size_bytes;
  }
  check_records(index);
  attempt([&] { check_tensor_sums(index); });
  check_file_sums(index);
  check_structure();
  return std::move(report_);
}

void Verification::check_sum(std::string what, const fs::path& file, const std::string& item, uint64_t expected,
                             uint64_t got, std::optional<uint64_t> offset) const {
  if (got == expected) return;
  throw quant::Error(quant::ErrorKind::kChecksum,
                     {.what = std::move(what),
                      .file = file,
                      .item = item,
                      .offset = offset,
                      .expected = quant::checksum_text(expected),
                      .got = quant::checksum_text(got),
                      .action = "check the drive, then copy the pack again or convert the model again"});
}

void Verification::check_records(const quant::PackIndex& index) {
  for (const quant::PackedLayer& layer : index.layers) {
    attempt([&] {
      const fs::path file = directory_ / layer.file;
      const quant::UniqueFd descriptor = quant::open_for_read(file);
      std::vector<std::byte> record(layer.layout.record_bytes);
      for (size_t expert = 0; expert < layer.checksums.size(); ++expert) {
        attempt([&] {
          const uint64_t offset = expert * layer.layout.record_bytes;
          quant::pread_exact(descriptor.get(), record, offset, file);
          ++report_.records;
          check_sum("wrong checksum of an expert", file, fmt::format("layer {} expert {}", layer.layer, expert),
                    layer.checksums[expert], quant::checksum(record), offset);
        });
        advance(layer.layout.record_bytes, fmt::format("layer {}", layer.layer));
      }
    });
  }
}

uint64_t Verification::tensor_sum(const quant::Checkpoint& checkpoint, const quant::TensorInfo& tensor) {
  const fs::path& file = checkpoint.files()[static_cast<size_t>(tensor.file)];
  const quant::UniqueFd descriptor = quant::open_for_read(file);
  std::vector<std::byte> piece(std::min(tensor.size_bytes, kPieceBytes));
  quant::ChecksumStream stream;
  for (uint64_t done = 0; done < tensor.size_bytes; done += piece.size()) {
    const auto part = std::span(piece).first(std::min<uint64_t>(piece.size(), tensor.size_bytes - done));
    quant::pread_exact(descriptor.get(), part, tensor.offset + done, file);
    stream.update(part);
    advance(part.size(), "resident tensors");
  }
  return stream.digest();
}

void Verification::check_tensor_sums(const quant::PackIndex& index) {
  const quant::Checkpoint checkpoint = source_.checkpoint();
  for (const auto& [name, expected] : index.tensor_checksums) {
    attempt([&, tensor_name = name, wanted = expected] {
      const quant::TensorInfo& tensor = checkpoint.at(tensor_name);
      ++report_.tensors;
      check_sum("wrong checksum of a tensor", checkpoint.files()[static_cast<size_t>(tensor.file)], tensor_name, wanted,
                tensor_sum(checkpoint, tensor), tensor.offset);
    });
  }
}

void Verification::check_file_sums(const quant::PackIndex& index) {
  for (const auto& [name, expected] : index.file_checksums) {
    attempt([&, file = directory_ / name, wanted = expected] {
      const uint64_t got = file_checksum(file, [&](uint64_t bytes) { advance(bytes, file.filename().string()); });
      ++report_.files;
      check_sum("wrong checksum of a file", file, "", wanted, got);
    });
  }
}

VerifyReport Verification::plain() {
  check_structure();
  attempt([&] {
    const quant::Checkpoint checkpoint = source_.checkpoint();
    std::vector<std::vector<const quant::TensorInfo*>> by_file(checkpoint.files().size());
    for (const auto& [name, tensor] : checkpoint.tensors()) {
      by_file[static_cast<size_t>(tensor.file)].push_back(&tensor);
      total_bytes_ += tensor.size_bytes;
    }
    for (size_t index = 0; index < by_file.size(); ++index) {
      const fs::path& file = checkpoint.files()[index];
      const quant::UniqueFd descriptor = quant::open_for_read(file);
      std::sort(by_file[index].begin(), by_file[index].end(),
                [](const auto* a, const auto* b) { return a->offset < b->offset; });
      for (const quant::TensorInfo* tensor : by_file[index]) {
        attempt([&] { check_numbers(file, descriptor.get(), *tensor); });
      }
    }
  });
  // check_structure() and the reading above meet the same fault of a file that can't be opened.
  const auto last = std::unique(report_.faults.begin(), report_.faults.end());
  report_.fault_count -= static_cast<uint64_t>(report_.faults.end() - last);
  report_.faults.erase(last, report_.faults.end());
  return std::move(report_);
}

void Verification::check_numbers(const fs::path& file, int descriptor, const quant::TensorInfo& tensor) {
  const bool is_scale = tensor.name.ends_with("_scale_inv");
  const auto block_bytes = static_cast<uint64_t>(std::max<int64_t>(1, quant::block_bits(tensor.dtype) / 8));
  std::vector<std::byte> piece(std::min(tensor.size_bytes, kPieceBytes / block_bytes * block_bytes));
  ++report_.tensors;
  for (uint64_t done = 0; done < tensor.size_bytes; done += piece.size()) {
    const auto part = std::span(piece).first(std::min<uint64_t>(piece.size(), tensor.size_bytes - done));
    quant::pread_exact(descriptor, part, tensor.offset + done, file);
    advance(part.size(), file.filename().string());
    const int64_t bad = first_bad_number(tensor.dtype, part, is_scale);
    if (bad < 0) continue;
    throw quant::Error(quant::ErrorKind::kBadFile,
                       {.what = is_scale ? "a scale is not a number above 0" : "a weight is NaN or infinite",
                        .file = file,
                        .item = tensor.name,
                        .offset = tensor.offset + done + static_cast<uint64_t>(bad),
                        .action = "download the file again"});
  }
}

}  // namespace

void VerifyReport::add(const quant::Error& fault) {
  ++fault_count;
  if (faults.size() < kMaxListed) faults.push_back(fault.what());
  if (fault_count == 1 || fault.kind() == quant::ErrorKind::kChecksum) kind = fault.kind();
}

int64_t first_bad_number(DType type, std::span<const std::byte> bytes, bool positive) {
  switch (type) {
    case DType::kF32:
      return first_bad<uint32_t>(bytes, 0x7F800000u, positive);
    case DType::kF16:
      return first_bad<uint16_t>(bytes, uint16_t{0x7C00}, positive);
    case DType::kBF16:
      return first_bad<uint16_t>(bytes, uint16_t{0x7F80}, positive);
    case DType::kF8E4M3: {
      // e4m3fn has no infinity; S.1111.111 is its one NaN.
      const auto bad = std::find_if(bytes.begin(), bytes.end(),
                                    [](std::byte b) { return (b & std::byte{0x7F}) == std::byte{0x7F}; });
      return bad == bytes.end() ? -1 : bad - bytes.begin();
    }
    default:
      return quant::block_elements(type) > 1 ? quant::first_bad_block(type, bytes) : -1;
  }
}

VerifyReport verify_model(const std::filesystem::path& model, const VerifyProgress& progress) {
  std::error_code ignored;
  if (!fs::exists(model, ignored)) {
    throw quant::Error(quant::ErrorKind::kBadFile,
                       {.what = "no such model", .file = model, .action = "check the path"});
  }
  const auto source = runtime::ModelSource::open(model);
  Verification verification(*source, progress);
  return source->is_pack() ? verification.pack() : verification.plain();
}

}  // namespace moraine::tools
