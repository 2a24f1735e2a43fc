#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "quant/expert_layout.h"

namespace moraine::quant {

/// One MoE layer's experts in a pack: file, layout, checksum of each record. Expert e's record lies at e ×
/// record_bytes.
struct PackedLayer {
  int layer = 0;
  std::string file;  ///< name inside the pack's directory
  ExpertLayout layout;
  std::vector<uint64_t> checksums;  // [n_routed_experts] XXH3-64 of the whole record
};

/// A Moraine pack is a model directory whose routed experts lie in experts-LLLLL.bin (one file per MoE layer) beside
/// the resident tensors (safetensors, as in a checkpoint), config.json and the tokenizer files. `moraine_pack.json` is
/// its index: written last, so a directory without it is an unfinished conversion. docs/weight_formats.md describes
/// every field.
struct PackIndex {
  static constexpr const char* kFileName = "moraine_pack.json";

  std::string wanted_type;          ///< the --experts of the conversion, e.g. "Q4_K"
  std::vector<PackedLayer> layers;  // ascending by layer
  /// XXH3-64 of every other file of the pack, by name, for `verify`.
  std::vector<std::pair<std::string, uint64_t>> file_checksums;
  /// XXH3-64 of every resident tensor, by name: checked at load.
  std::vector<std::pair<std::string, uint64_t>> tensor_checksums;

  /// Bounds on what an index may say; a real pack stays far below.
  static constexpr int kMaxLayer = 99999;   // five digits in the file's name
  static constexpr int kMaxExperts = 4096;  // per layer

  static bool present(const std::filesystem::path& directory);
  /// Reads and validates the index and the sizes of the expert files it names. Throws Error(kBadFile).
  static PackIndex read(const std::filesystem::path& directory);
  /// Validates the text of an index without touching the disk; `file` is for messages. Throws Error(kBadFile).
  static PackIndex parse(std::string_view text, const std::filesystem::path& file);
  /// tmp + fsync + rename; then removes the journals of the expert files, which are complete by now.
  void write(const std::filesystem::path& directory) const;
};

/// "experts-00003.bin": the file of a layer's experts.
std::string expert_file_name(int layer);
/// "experts-00003.journal": what ExpertFileWriter keeps beside it until the index is written.
std::string expert_journal_name(int layer);

/// Writes one layer's expert file, resumable: the file grows under a temporary name beside a journal of finished
/// records' checksums, is flushed to the disk and renamed when all records are there. A writer opened again on an
/// interrupted file verifies what is there and goes on behind the last whole record; on a finished file has_all() is
/// true at once.
class ExpertFileWriter {
 public:
  ExpertFileWriter(const std::filesystem::path& directory, int layer, const ExpertLayout& layout, int n_experts);
  ~ExpertFileWriter();
  ExpertFileWriter(const ExpertFileWriter&) = delete;
  ExpertFileWriter& operator=(const ExpertFileWriter&) = delete;

  /// The expert whose record is wanted next.
  int next_expert() const;
  bool has_all() const;
  /// The record of next_expert(). Throws Error(kIo / kNotEnough); what was written before stays usable.
  void append(std::span<const std::byte> record);
  /// All records appended: flush, rename, return the entry for the index.
  PackedLayer finish();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace moraine::quant
