#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "quant/dtype.h"
#include "quant/file_io.h"

namespace moraine::quant {

struct CheckpointIndex;

/// One tensor of a checkpoint: what it is and where its bytes lie. Nothing is loaded.
struct TensorInfo {
  std::string name;
  DType dtype = DType::kF32;
  std::vector<int64_t> shape;  // row-major, [out, in] for a matrix
  int file = 0;                ///< index into Checkpoint::files()
  uint64_t offset = 0;         ///< of the first byte, from the start of the file; no alignment is promised
  uint64_t size_bytes = 0;
};

/// Whether a safetensors file may hold tensors in block formats ("Q8_0", "Q4_0", "Q4_K": GGUF's blocks, rows
/// contiguous). The published format does not know them; a Moraine pack keeps resident matrices in them.
enum class BlockFormats { kRefused, kAllowed };

/// Validates the header of a safetensors file by every rule of the format (shared/spec/safetensors.md §3) and returns
/// its tensors sorted by offset, with `file` = 0. Memory stays proportional to the header.
/// Throws Error(kBadFile) naming file, tensor, field and offset; Error(kIo) if the file can't be read.
std::vector<TensorInfo> read_safetensors_header(const std::filesystem::path& file,
                                                BlockFormats block_formats = BlockFormats::kRefused);

/// The same for a file that is already open; `file` is its name for messages.
std::vector<TensorInfo> read_safetensors_header(int fd, const std::filesystem::path& file,
                                                BlockFormats block_formats = BlockFormats::kRefused);

/// The length of the JSON header, from the first bytes of a file (up to 64, fewer if it is shorter). Throws
/// Error(kBadFile) if the file is shorter than that header, is a Git-LFS pointer, or the length is beyond the format's.
uint64_t safetensors_header_bytes(std::span<const std::byte> first_bytes, uint64_t file_bytes,
                                  const std::filesystem::path& file);

/// read_safetensors_header() for a header already in memory: `header` is the JSON text, `data_start` its end in the
/// file, `file_bytes` the file's size.
std::vector<TensorInfo> parse_safetensors_header(std::string_view header, uint64_t data_start, uint64_t file_bytes,
                                                 const std::filesystem::path& file,
                                                 BlockFormats block_formats = BlockFormats::kRefused);

/// A model's weights as one table of tensors by their Hugging Face names: a directory's safetensors files (one
/// model.safetensors, or the shards that model.safetensors.index.json names), or tensors found in files of another
/// format. Reads are plain pread, safe from several threads.
class Checkpoint {
 public:
  /// Opens and validates every shard. Throws Error(kBadFile): all missing and all incomplete or damaged shards are
  /// named in one message, Git-LFS pointers are recognised, an unsafe file name in the index is refused. Tensors in
  /// block formats are accepted if the directory is a Moraine pack.
  static Checkpoint open(const std::filesystem::path& directory);

  /// The same for tensors that lie in files of another format: `tensors` have distinct names and index `files`;
  /// directory() is `location`, the model's name in messages. Throws Error(kIo / kBadFile) if a file can't be opened.
  static Checkpoint from_tensors(std::filesystem::path location, std::vector<std::filesystem::path> files,
                                 std::vector<TensorInfo> tensors);

  const std::vector<std::filesystem::path>& files() const { return files_; }
  /// All tensors, ascending by name.
  const std::map<std::string, TensorInfo, std::less<>>& tensors() const { return tensors_; }
  /// The tensor of that name or nullptr.
  const TensorInfo* find(std::string_view name) const;
  /// The tensor of that name; throws Error(kBadFile) naming it if it is missing.
  const TensorInfo& at(std::string_view name) const;
  /// Reads the tensor's bytes; `out.size()` must be size_bytes. Throws Error(kIo) or, if the file has shrunk, kBadFile.
  void read(const TensorInfo& tensor, std::span<std::byte> out) const;
  /// Things worth a warning line that did no harm (unmapped tensors, a wrong total_size).
  const std::vector<std::string>& warnings() const { return warnings_; }
  const std::filesystem::path& directory() const { return directory_; }

 private:
  void add_files(const std::vector<std::string>& names, BlockFormats block_formats);
  void add_file(const std::filesystem::path& file, BlockFormats block_formats);
  void compare_with(const CheckpointIndex& index);
  void warn_about_unmapped(const CheckpointIndex& index, size_t n_mapped);

  std::filesystem::path directory_;
  std::vector<std::filesystem::path> files_;
  std::vector<std::shared_ptr<const UniqueFd>> descriptors_;  // closed with the last copy
  std::map<std::string, TensorInfo, std::less<>> tensors_;
  std::vector<std::string> warnings_;
};

/// Writes one safetensors file: tmp + fsync + rename, so that the name only ever holds a whole file.
class SafetensorsWriter {
 public:
  /// `tensors`' offsets and file indices are ignored; the bytes follow through write() in this order.
  SafetensorsWriter(std::filesystem::path file, std::vector<TensorInfo> tensors,
                    BlockFormats block_formats = BlockFormats::kRefused);
  ~SafetensorsWriter();  ///< removes the temporary file if finish() was not reached
  SafetensorsWriter(const SafetensorsWriter&) = delete;
  SafetensorsWriter& operator=(const SafetensorsWriter&) = delete;

  /// The bytes of the next tensor; their number must be its size_bytes. Throws Error(kIo / kNotEnough).
  void write(std::span<const std::byte> bytes);
  /// All tensors written: flushes to the disk and gives the file its name.
  void finish();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace moraine::quant
