#pragma once

#include <cstdint>
#include <deque>
#include <optional>
#include <span>
#include <unordered_map>
#include <vector>

#include "offload/block_reader.h"
#include "offload/file_set.h"
#include "quant/aligned_buffer.h"

namespace moraine::offload {

/// One system read. A piece that O_DIRECT can't put where it is wanted goes through a bounce buffer, whose wanted part
/// is copied when it is there.
struct ReadPiece {
  uint64_t request = 0;  // the scheduler's key
  int file = 0;
  bool direct = false;
  uint64_t offset = 0;               // of the system read in the file
  uint64_t length_bytes = 0;         // of the system read
  uint64_t done_bytes = 0;           // read so far
  uint64_t total_bytes = 0;          // read so far, with what was read twice
  std::byte* buffer = nullptr;       // [length_bytes] where the system puts it; nullptr: bounced, no buffer yet
  std::byte* destination = nullptr;  // [wanted_bytes]
  uint64_t skip_bytes = 0;           // read before the first wanted byte
  uint64_t wanted_bytes = 0;
  int attempts = 0;  // without progress
  int bounce = -1;   // index of its bounce buffer
};

/// What became of a piece after a system read.
struct PieceOutcome {
  enum class State { kDone, kAgain, kFailed } state = State::kDone;
  ReadFailure failure = {};  // if kFailed
};

/// Takes the result of a system read (bytes, or a negative errno) of the rest of `piece`, from done_bytes on. Short
/// reads, EINTR and EAGAIN ask to go on (kAgain) from an aligned offset, a bounded number of times without progress;
/// EINVAL of a direct read, or one of less than a block, goes on plainly; the end of the file before the last wanted
/// byte is a failure (kBadFile). Thread-safe.
PieceOutcome absorb_read(ReadPiece& piece, int64_t result, const FileSet& files);

struct SchedulerLimits {
  uint64_t piece_bytes =
      512u << 10;           ///< longest system read, a multiple of 4096: direct reads above 1 MiB may come short
  int bounce_buffers = 32;  ///< of piece_bytes each, taken when first needed
  /// Handed out and not settled. Enough for any drive to be at full speed; what comes behind it can still be overtaken
  /// by what is urgent.
  uint64_t in_flight_bytes = 8u << 20;
  /// The same while only what is not urgent is left: what is urgent then may have to wait behind it.
  uint64_t later_in_flight_bytes = 4u << 20;
};

/// Cuts requests into pieces, says which to read next, and puts completions together: all of a reader that is not the
/// system call. Not thread-safe; starts nothing.
class ReadScheduler {
 public:
  ReadScheduler(const FileSet& files, const SchedulerLimits& limits);

  void add(const ReadRequest& request);
  /// The next piece to read, urgent ones first, or nothing (none left, enough in flight, or it needs a bounce buffer
  /// and all are in use).
  std::optional<ReadPiece> next();
  /// Takes a piece from next() back after absorb_read().
  void settle(ReadPiece piece, PieceOutcome outcome);
  /// Moves what has completed to the end of `completions`.
  void take_completions(std::vector<ReadCompletion>& completions);
  bool has_completions() const { return !completions_.empty(); }

 private:
  struct Request {
    uint64_t tag = 0;
    uint64_t pieces_left = 0;
    uint64_t bytes_read = 0;
    bool urgent = true;
    std::optional<ReadFailure> failure = {};
  };

  void cut(uint64_t key, const ReadRequest& request);
  bool give_bounce(ReadPiece& piece);
  void end_piece(const ReadPiece& piece);

  const FileSet& files_;
  const SchedulerLimits limits_;
  uint64_t next_key_ = 0;
  uint64_t in_flight_bytes_ = 0;
  std::unordered_map<uint64_t, Request> requests_;
  std::deque<ReadPiece> urgent_, later_;
  std::vector<quant::AlignedBuffer> bounce_;
  std::vector<int> free_bounce_;
  std::vector<ReadCompletion> completions_;
};

}  // namespace moraine::offload
