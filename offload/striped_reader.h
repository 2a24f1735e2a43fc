#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

#include "offload/block_reader.h"
#include "offload/drive_balance.h"
#include "offload/mirrored_files.h"

namespace moraine::offload {

struct StripeLimits {
  uint64_t piece_bytes = 512u << 10;  ///< longest part of a request that one drive reads; a multiple of the alignment
  int pieces_in_flight = 32;          ///< of one drive; the inner reader must take that many of each at once
};

/// Reads a model's files from several drives that hold copies: requests are cut into pieces and each piece goes to the
/// drive that will have it first (DriveBalance), chosen as late as possible. A piece that fails on one drive is read
/// from the others; a drive that keeps failing is left alone. Whoever asks sees one reader of the model's own files.
class StripedReader : public BlockReader {
 public:
  using Inform = std::function<void(const std::string&)>;
  using Clock = std::function<DriveBalance::Time()>;

  /// `inner` reads `files.paths`. `inform` (may be empty) gets a line when a drive begins to fail and when it is given
  /// up; it is called by submit() and wait().
  StripedReader(std::unique_ptr<BlockReader> inner, MirroredFiles files, const StripeLimits& limits, Inform inform,
                Clock clock = std::chrono::steady_clock::now);

  void submit(std::span<const ReadRequest> requests) override;
  void wait(std::vector<ReadCompletion>& completions) override;
  void wake() override;
  uint64_t alignment_bytes() const override { return inner_->alignment_bytes(); }
  const char* name() const override { return inner_->name(); }

 private:
  struct Request {
    uint64_t tag = 0;
    uint64_t pieces_left = 0;
    uint64_t bytes_read = 0;
    std::optional<ReadFailure> failure = {};
  };
  struct Piece {
    uint64_t request = 0;  // key into requests_
    int file = 0;          // of the model
    uint64_t offset = 0;
    std::span<std::byte> destination;
    bool urgent = true;
    bool again = false;
    uint32_t tried = 0;  // bit d: drive d failed it
    int drive = -1;      // that reads it
  };

  void cut(const ReadRequest& request);
  void dispatch();
  bool dispatch_from(std::deque<Piece>& queue);
  std::optional<FileCopy> choose(const Piece& piece, DriveBalance::Time now) const;
  void hand_over(Piece piece, const FileCopy& copy, DriveBalance::Time now);
  void settle(ReadCompletion& completion);
  void note_failure(int drive, const ReadFailure& failure);
  void end_piece(const Piece& piece);

  const MirroredFiles files_;
  const StripeLimits limits_;
  const Inform inform_;
  const Clock clock_;
  DriveBalance balance_;
  std::vector<int> failures_;  // [drives]
  uint64_t next_key_ = 0;      // of requests and pieces
  std::unordered_map<uint64_t, Request> requests_;
  std::deque<Piece> urgent_, later_;
  uint64_t queued_bytes_ = 0;                        // in these two
  std::unordered_map<uint64_t, Piece> under_way_;    // by the tag given to `inner_`
  std::vector<ReadRequest> batch_;                   // to be submitted to `inner_`
  std::vector<ReadCompletion> arrived_, completed_;  // from `inner_`; to be taken by wait()
  std::atomic<bool> woken_ = false;
  const std::unique_ptr<BlockReader> inner_;
};

}  // namespace moraine::offload
