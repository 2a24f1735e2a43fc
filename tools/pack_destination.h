#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>

#include "quant/expert_pack.h"

namespace moraine::tools {

/// Free bytes of the file system that holds a path.
using FreeBytes = std::function<uint64_t(const std::filesystem::path&)>;

/// What the system says.
uint64_t free_disk_bytes(const std::filesystem::path& path);

/// The directory that a pack is written to. A file in it says what is being written (the identity), so that an
/// interrupted run is continued by the same command and nothing else is ever overwritten.
class PackDestination {
 public:
  /// Looks at the directory; writes nothing. `identity` is the file's text, `other` the message for a directory with
  /// another one. Throws quant::Error(kUsage) if the directory holds anything else.
  PackDestination(std::filesystem::path directory, std::string identity, const std::string& other);

  const std::filesystem::path& directory() const { return directory_; }
  /// It holds this very pack, finished.
  bool finished() const { return finished_; }
  /// It holds a part of it.
  bool resumes() const { return resumes_; }

  /// Throws quant::Error(kNotEnough) with the numbers if the disk has no room for a pack of that size, what is there
  /// already counted. `free_bytes` is for tests; empty: statvfs.
  void check_space(uint64_t total_bytes, const FreeBytes& free_bytes) const;
  /// Creates the directory and marks it. Throws quant::Error if it can't be written.
  void begin() const;

  /// Writes a text file of the pack, or has its checksum alone where begin() wrote it: the identity.
  void add_text(const std::string& name, const std::string& text, quant::PackIndex& pack) const;
  void add_identity(quant::PackIndex& pack) const;

 private:
  std::filesystem::path directory_;
  std::string identity_;
  bool finished_ = false;
  bool resumes_ = false;
};

}  // namespace moraine::tools
