#pragma once

#include <cstring>
#include <filesystem>
#include <string>
#include <vector>

#include "offload/expert_record_source.h"
#include "quant/error.h"
#include "support/temp_dir.h"

namespace moraine::testing {

/// Experts of one page each in a real file; the record's first float is number_of(id). fail_expert's finish() throws.
class NumberedExperts final : public offload::ExpertRecordSource {
 public:
  static constexpr uint64_t kRecordBytes = 4096;

  NumberedExperts(const TempDir& dir, int32_t first_layer, int32_t layer_count, int32_t n_experts)
      : first_layer_(first_layer), n_experts_(n_experts) {
    std::string bytes(static_cast<size_t>((layer_count - first_layer) * n_experts) * kRecordBytes, '\0');
    for (int32_t layer = first_layer; layer < layer_count; ++layer) {
      for (int32_t e = 0; e < n_experts; ++e) {
        const float number = number_of({layer, e});
        std::memcpy(bytes.data() + ids_.size() * kRecordBytes, &number, sizeof(number));
        ids_.push_back({layer, e});
      }
    }
    files_.push_back(dir.write("experts.bin", bytes));
  }

  static float number_of(offload::ExpertId id) { return static_cast<float>(id.layer * 100 + id.expert); }

  offload::ExpertId fail_expert{-1, -1};

  const std::vector<std::filesystem::path>& files() const override { return files_; }
  std::span<const offload::ExpertId> experts() const override { return ids_; }
  uint64_t max_record_bytes() const override { return kRecordBytes; }
  uint64_t record_bytes(offload::ExpertId) const override { return kRecordBytes; }
  std::vector<offload::Extent> extents(offload::ExpertId id) const override {
    const auto place = static_cast<uint64_t>((id.layer - first_layer_) * n_experts_ + id.expert);
    return {{0, place * kRecordBytes, kRecordBytes}};
  }
  bool reads_in_place() const override { return true; }
  void finish(offload::ExpertId id, std::span<const std::byte>, std::span<std::byte>) const override {
    if (id == fail_expert) throw quant::Error(quant::ErrorKind::kChecksum, {.what = "injected: wrong checksum"});
  }

 private:
  int32_t first_layer_;
  int32_t n_experts_;
  std::vector<offload::ExpertId> ids_;
  std::vector<std::filesystem::path> files_;
};

}  // namespace moraine::testing
