#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "quant/error.h"
#include "quant/gguf.h"

namespace moraine::quant {

/// Walks through the header of a GGUF file in pieces. Every length is compared with what is left before a byte of
/// memory is taken for it.
class GgufCursor {
 public:
  GgufCursor(const ReadAt& read, uint64_t file_bytes, const std::filesystem::path& file);

  uint64_t offset() const { return offset_; }
  /// Bytes that may still come: of the file, and of the longest header.
  uint64_t left() const { return end_ - offset_; }
  /// What is being read, for messages: the key or the tensor's name.
  void set_item(std::string item) { item_ = std::move(item); }

  uint32_t u32(const char* what);
  uint64_t u64(const char* what);
  std::string string(const char* what, uint64_t max_bytes);
  /// Appends the next `count` bytes. Throws if there are not so many.
  void append(std::string& out, uint64_t count, const char* what);
  /// Throws unless `count` elements of at least `min_bytes` each can still come.
  void require_room(uint64_t count, uint64_t min_bytes, const char* what) const;

  /// An Error at the current place.
  [[noreturn]] void fail(const std::string& what, const std::string& expected = {}, const std::string& got = {},
                         const std::string& action = {}) const;

 private:
  void take(void* out, uint64_t count, const char* what);

  const ReadAt& read_;
  const std::filesystem::path& file_;
  uint64_t file_bytes_;
  uint64_t end_;  // no header goes beyond
  uint64_t offset_ = 0;
  std::string item_;
  std::vector<std::byte> buffer_;  // a piece of the file
  uint64_t buffer_offset_ = 0;     // where it lies
};

}  // namespace moraine::quant
