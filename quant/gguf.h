#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "quant/file_io.h"
#include "quant/gguf_value.h"
#include "quant/safetensors.h"

namespace moraine::quant {

/// GGUF version 3 (and 2, which looks the same): one file, or one part of a model that was split.
/// Layout, all little-endian: magic "GGUF", u32 version, u64 tensor count, u64 metadata count; per metadata value a
/// string key, u32 type, the value; per tensor a string name, u32 n_dims, u64 dims (fastest first), u32 type, u64
/// offset; zeros up to a multiple of the alignment; the tensors' bytes, each at its offset from here. A string is u64
/// length and bytes. Source: ggml-org/ggml docs/gguf.md.
struct GgufPart {
  GgufMetadata metadata;
  std::vector<TensorInfo> tensors;  // in the order of the file; shapes row-major, offsets from the start of the file
};

/// Bounds on a header; what real files hold stays far below. They keep a broken file from costing time or memory.
struct GgufLimits {
  static constexpr uint64_t kMaxHeaderBytes = 64u << 20;
  static constexpr uint64_t kMaxKeys = 65536;
  static constexpr uint64_t kMaxTensors = 131072;
  static constexpr uint64_t kMaxKeyBytes = 65535;
  static constexpr uint64_t kMaxNameBytes = 255;
};

/// Fills `out` from byte `offset` of a file; asked only for bytes inside it.
using ReadAt = std::function<void(std::span<std::byte> out, uint64_t offset)>;

/// Validates a header by every rule of the format. Memory stays proportional to the header's bytes, none is taken by a
/// count that the file only claims. Throws Error(kBadFile) naming file, key or tensor, and offset: wrong magic or
/// version, counts or lengths beyond the file, unknown types, nested arrays, duplicate keys or names, impossible
/// shapes, offsets that are unaligned, overlap or lie beyond the end.
GgufPart parse_gguf(const ReadAt& read, uint64_t file_bytes, const std::filesystem::path& file);

/// A model in one GGUF file, or in the parts NAME-00001-of-0000N.gguf of a split one.
class Gguf {
 public:
  /// Opens the file, and all other parts if it is one of several. Throws Error(kBadFile): also for missing parts, all
  /// named in one message, and parts that do not belong together.
  static Gguf open(const std::filesystem::path& file);
  /// The same from headers that were read already: parts[i] is that of files[i].
  static Gguf from_parts(std::vector<std::filesystem::path> files, std::vector<GgufPart> parts);

  const std::vector<std::filesystem::path>& files() const { return files_; }  // [parts]
  /// Of the first part, which describes the model.
  const GgufMetadata& metadata() const { return metadata_; }
  /// All tensors under their names in the file; `file` is an index into files().
  const std::vector<TensorInfo>& tensors() const { return tensors_; }

 private:
  std::vector<std::filesystem::path> files_;
  GgufMetadata metadata_;
  std::vector<TensorInfo> tensors_;
};

/// Writes one GGUF file: under "<name>.part" until it is whole and flushed to the disk, so that the name only ever
/// holds a whole file. Tensors lie in the given order, each at a multiple of 32; their bytes come in pieces and in any
/// order, as experts come one by one. What an interrupted writer left is taken up by one of the same metadata and
/// tensors.
class GgufWriter {
 public:
  using Metadata = std::vector<std::pair<std::string, GgufValue>>;

  /// Writes the header. `tensors`' offsets and file indices are ignored, shapes are row-major. Throws Error(kBadFile)
  /// where a reader would refuse the file, Error(kIo / kNotEnough) where it can't be written.
  GgufWriter(std::filesystem::path file, const Metadata& metadata, std::vector<TensorInfo> tensors);
  ~GgufWriter();
  GgufWriter(const GgufWriter&) = delete;
  GgufWriter& operator=(const GgufWriter&) = delete;

  /// Bytes [offset, offset + bytes.size()) of a tensor, by its place in the list; may be repeated. Throws Error(kIo /
  /// kNotEnough).
  void write(size_t tensor, uint64_t offset, std::span<const std::byte> bytes);
  /// The file held such a header already: bytes of its tensors may be there, which read() gives and keep() counts as
  /// written. What was never written reads as zeros.
  bool continues() const;
  void read(size_t tensor, uint64_t offset, std::span<std::byte> out) const;
  void keep(size_t tensor, uint64_t bytes);
  /// All bytes of all tensors written: flushes to the disk and gives the file its name.
  void finish();
  /// Of the whole file.
  uint64_t file_bytes() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace moraine::quant
