#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

namespace moraine::tools {

/// The SHA-256 that a publisher states of a weight file.
struct StatedHash {
  std::filesystem::path file;
  std::string sha256;     ///< 64 lower-case hexadecimal digits
  std::string stated_by;  ///< the file or link that says so, for messages
};

/// What is stated about `files`, in their order; a file with several statements is there several times. Understood are,
/// in the file's directory:
///   NAME.sha256, SHA256SUMS and other *.sha256   lines of sha256sum(1), or a bare hash in NAME.sha256
///   .cache/huggingface/download/NAME.metadata    what the Hugging Face client leaves after `download --local-dir`
///   a link to …/blobs/HASH                       the Hugging Face client's cache
/// Anything else in these places is no statement.
std::vector<StatedHash> stated_hashes(const std::vector<std::filesystem::path>& files);

/// Compares weight files with their stated hashes before a conversion, which reads them all: hours of work must not
/// begin on a damaged download. Files that were found right are noted in a record, so that an interrupted check goes on
/// and the next run of the same conversion does not read them again.
class SourceHashes {
 public:
  using Progress = std::function<void(uint64_t done_bytes, uint64_t total_bytes, const std::string& note)>;

  /// Reads the record, if there is one; a file counts as checked while its size and time of change are the noted ones.
  SourceHashes(std::vector<StatedHash> hashes, std::filesystem::path record);

  /// Files that somebody states a hash of, and those of them that still have to be read.
  size_t stated_files() const { return stated_files_; }
  size_t unchecked_files() const { return unchecked_.size(); }
  uint64_t unchecked_bytes() const { return unchecked_bytes_; }

  /// Reads them with `threads` threads; the record's directory must exist. Throws quant::Error: kChecksum naming every
  /// file that differs, when all are read; kIo. `progress` is called from the calling thread.
  void check(int threads, const Progress& progress);
  /// Removes the record: the conversion is finished.
  void forget() const;

 private:
  struct File {
    std::filesystem::path path;
    uint64_t size_bytes = 0;
    int64_t changed_ns = 0;          // time of the last change
    std::vector<StatedHash> stated;  // not empty
  };

  /// The record's line about a file that is as stated.
  static std::string line_of(const File& file);

  std::filesystem::path record_;
  std::string known_;  // lines of the record that still hold
  std::vector<File> unchecked_;
  size_t stated_files_ = 0;
  uint64_t unchecked_bytes_ = 0;
};

}  // namespace moraine::tools
