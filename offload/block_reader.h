#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "quant/error.h"

namespace moraine::offload {

/// How the store reads: io_uring where the system allows it, else pread (one line told through StoreOptions::inform).
enum class ReaderKind { kAuto, kUring, kPread };

/// The store asks for records in requests of at most this, so that it sees how far each has come.
constexpr uint64_t kRequestBytes = 4u << 20;

/// One range of one file, wanted in memory. The destination must stay until the request's completion was delivered.
struct ReadRequest {
  uint64_t tag = 0;     ///< comes back with the completion; need not be unique
  int file = 0;         ///< index into the files the reader was opened with
  uint64_t offset = 0;  ///< any alignment
  std::span<std::byte> destination;
  bool urgent = true;  ///< goes before every request that is not, unless that was handed to the system already
  bool again = false;  ///< its bytes came wrong: with copies on several drives, they come from the model's own now
};

/// Why a request failed, in the parts of a quant::Error, so that the store can add which expert it was.
struct ReadFailure {
  quant::ErrorKind kind = quant::ErrorKind::kIo;
  quant::ErrorDetail detail = {};
};

/// The end of one request: all bytes are in the destination, or `failure` says why not (then its content is undefined).
struct ReadCompletion {
  uint64_t tag = 0;
  uint64_t bytes_read = 0;  ///< from the file: with what alignment added and what was read again
  std::optional<ReadFailure> failure = {};
};

/// Port: reads ranges of a fixed set of files, many at a time. submit() and wait() belong to one thread; wake() may be
/// called from any. The destructor waits for the reads that the system holds.
class BlockReader {
 public:
  virtual ~BlockReader() = default;

  /// Takes requests without waiting for them; any number. Throws quant::Error(kIo) if the reader itself is broken.
  virtual void submit(std::span<const ReadRequest> requests) = 0;
  /// Appends every completion that is there; waits for the first one, or until wake(). Errors as submit().
  virtual void wait(std::vector<ReadCompletion>& completions) = 0;
  /// Makes the wait() under way, or else the next one, return.
  virtual void wake() = 0;

  /// Requests whose offset, size and address are multiples of this are read without a copy.
  virtual uint64_t alignment_bytes() const = 0;
  /// "io_uring" or "pread".
  virtual const char* name() const = 0;
};

}  // namespace moraine::offload
