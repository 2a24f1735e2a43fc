#include "offload/read_scheduler.h"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <limits>
#include <utility>

namespace moraine::offload {
namespace {

constexpr uint64_t kAlignment = FileSet::kAlignmentBytes;
/// System reads of one piece in a row that brought nothing.
constexpr int kMaxAttempts = 16;

uint64_t align_down(uint64_t value) {
  return value / kAlignment * kAlignment;
}
uint64_t align_up(uint64_t value) {
  return align_down(value + kAlignment - 1);
}
bool is_aligned(const std::byte* address) {
  return reinterpret_cast<uintptr_t>(address) % kAlignment == 0;
}

PieceOutcome failed(const ReadPiece& piece, const FileSet& files, quant::ErrorKind kind, std::string what,
                    std::string action) {
  return {.state = PieceOutcome::State::kFailed,
          .failure = {.kind = kind,
                      .detail = {.what = std::move(what),
                                 .file = files.path(piece.file),
                                 .offset = piece.offset + piece.done_bytes,
                                 .action = std::move(action)}}};
}

PieceOutcome retry_or_fail(ReadPiece& piece, const FileSet& files, std::string reason) {
  if (++piece.attempts < kMaxAttempts) return {.state = PieceOutcome::State::kAgain};
  return failed(piece, files, quant::ErrorKind::kIo,
                fmt::format("could not read {} bytes after {} attempts: {}", piece.length_bytes - piece.done_bytes,
                            kMaxAttempts, reason),
                "check the drive and the kernel log (dmesg)");
}

/// A system read that failed with `error`.
PieceOutcome absorb_error(ReadPiece& piece, int error, const FileSet& files) {
  if (error == EINTR || error == EAGAIN) return retry_or_fail(piece, files, std::strerror(error));
  if (error == EINVAL && piece.direct) {
    files.refuse_direct(piece.file);
    piece.direct = false;
    return {.state = PieceOutcome::State::kAgain};
  }
  const bool lack = error == ENOMEM;
  return failed(
      piece, files, lack ? quant::ErrorKind::kNotEnough : quant::ErrorKind::kIo,
      fmt::format("could not read {} bytes: {}", piece.length_bytes - piece.done_bytes, std::strerror(error)),
      lack ? "close other programs or choose a smaller --ram-budget" : "check the drive and the kernel log (dmesg)");
}

}  // namespace

PieceOutcome absorb_read(ReadPiece& piece, int64_t result, const FileSet& files) {
  if (result < 0) return absorb_error(piece, static_cast<int>(-result), files);
  const uint64_t before = piece.done_bytes;
  const uint64_t got_end = before + static_cast<uint64_t>(result);
  MORAINE_CHECK(got_end <= piece.length_bytes);
  piece.total_bytes += static_cast<uint64_t>(result);
  if (!piece.direct && result > 0) files.forget(piece.file, piece.offset + before, static_cast<uint64_t>(result));

  if (got_end >= piece.skip_bytes + piece.wanted_bytes) {
    piece.done_bytes = got_end;
    if (piece.bounce >= 0) std::memcpy(piece.destination, piece.buffer + piece.skip_bytes, piece.wanted_bytes);
    return {.state = PieceOutcome::State::kDone};
  }
  const uint64_t file_size_bytes = files.size_bytes(piece.file);
  if (piece.offset + got_end >= file_size_bytes) {
    piece.done_bytes = got_end;
    PieceOutcome outcome = failed(piece, files, quant::ErrorKind::kBadFile, "the file ends too early",
                                  "it is truncated or was changed: download, copy or convert it again");
    outcome.failure.detail.expected =
        fmt::format("at least {} bytes", piece.offset + piece.skip_bytes + piece.wanted_bytes);
    outcome.failure.detail.got = fmt::format("{}", file_size_bytes);
    return outcome;
  }
  // Less than a block at a time: only a plain read goes on from the middle of one.
  if (piece.direct && result > 0 && align_down(got_end) <= before) piece.direct = false;
  // A direct read can only go on where the alignment lets it: the bytes behind that are read again.
  piece.done_bytes = piece.direct ? align_down(got_end) : got_end;
  if (piece.done_bytes <= before) return retry_or_fail(piece, files, "the system keeps returning short reads");
  piece.attempts = 0;
  return {.state = PieceOutcome::State::kAgain};
}

ReadScheduler::ReadScheduler(const FileSet& files, const SchedulerLimits& limits) : files_(files), limits_(limits) {
  MORAINE_CHECK(limits.piece_bytes >= kAlignment && limits.piece_bytes % kAlignment == 0 && limits.bounce_buffers > 0);
}

void ReadScheduler::add(const ReadRequest& request) {
  MORAINE_CHECK(request.file >= 0 && request.file < files_.count());
  if (request.destination.empty()) {
    completions_.push_back({.tag = request.tag});
    return;
  }
  constexpr auto kMaxOffset = static_cast<uint64_t>(std::numeric_limits<int64_t>::max());
  if (request.offset > kMaxOffset - limits_.piece_bytes ||
      request.destination.size() > kMaxOffset - limits_.piece_bytes - request.offset) {
    completions_.push_back({.tag = request.tag,
                            .failure = ReadFailure{.kind = quant::ErrorKind::kBadFile,
                                                   .detail = {.what = "no file reaches this far",
                                                              .file = files_.path(request.file),
                                                              .offset = request.offset}}});
    return;
  }
  const uint64_t key = next_key_++;
  requests_[key] = {.tag = request.tag, .urgent = request.urgent};
  cut(key, request);
}

void ReadScheduler::cut(uint64_t key, const ReadRequest& request) {
  Request& entry = requests_[key];
  std::deque<ReadPiece>& queue = request.urgent ? urgent_ : later_;
  const bool direct = files_.direct(request.file);
  const bool lands_aligned = request.offset % kAlignment == 0 && is_aligned(request.destination.data());
  uint64_t done_bytes = 0;
  while (done_bytes < request.destination.size()) {
    const uint64_t offset = request.offset + done_bytes;
    const uint64_t left_bytes = request.destination.size() - done_bytes;
    ReadPiece piece = {.request = key, .file = request.file, .direct = direct};
    piece.destination = request.destination.data() + done_bytes;
    const bool straight = !direct || (lands_aligned && left_bytes >= kAlignment);
    if (straight) {
      const uint64_t readable_bytes = direct ? align_down(left_bytes) : left_bytes;
      piece.offset = offset;
      piece.wanted_bytes = std::min(readable_bytes, limits_.piece_bytes);
      piece.length_bytes = piece.wanted_bytes;
      piece.buffer = piece.destination;
    } else {
      piece.offset = align_down(offset);
      piece.skip_bytes = offset - piece.offset;
      piece.wanted_bytes = std::min(left_bytes, limits_.piece_bytes - piece.skip_bytes);
      piece.length_bytes = align_up(piece.skip_bytes + piece.wanted_bytes);
    }
    done_bytes += piece.wanted_bytes;
    ++entry.pieces_left;
    queue.push_back(piece);
  }
}

bool ReadScheduler::give_bounce(ReadPiece& piece) {
  if (piece.buffer != nullptr) return true;
  if (free_bounce_.empty()) {
    if (bounce_.size() >= static_cast<size_t>(limits_.bounce_buffers)) return false;
    bounce_.emplace_back(limits_.piece_bytes);
    free_bounce_.push_back(static_cast<int>(bounce_.size()) - 1);
  }
  piece.bounce = free_bounce_.back();
  free_bounce_.pop_back();
  piece.buffer = bounce_[static_cast<size_t>(piece.bounce)].data();
  return true;
}

std::optional<ReadPiece> ReadScheduler::next() {
  for (std::deque<ReadPiece>* queue : {&urgent_, &later_}) {
    while (!queue->empty()) {
      if (requests_.at(queue->front().request).failure) {
        // One piece of its request failed: the rest would be read for nothing.
        const ReadPiece dropped = queue->front();
        queue->pop_front();
        end_piece(dropped);
        continue;
      }
      const uint64_t most_bytes = queue == &urgent_ ? limits_.in_flight_bytes
                                                    : std::min(limits_.in_flight_bytes, limits_.later_in_flight_bytes);
      const bool has_room = in_flight_bytes_ + queue->front().length_bytes <= most_bytes;
      if (in_flight_bytes_ > 0 && !has_room) return std::nullopt;
      // A piece of the other queue may hold the buffer that this one waits for.
      if (!give_bounce(queue->front())) break;
      ReadPiece piece = queue->front();
      queue->pop_front();
      in_flight_bytes_ += piece.length_bytes;
      piece.direct = piece.direct && files_.direct(piece.file);
      return piece;
    }
  }
  return std::nullopt;
}

void ReadScheduler::settle(ReadPiece piece, PieceOutcome outcome) {
  in_flight_bytes_ -= piece.length_bytes;
  Request& request = requests_.at(piece.request);
  request.bytes_read += std::exchange(piece.total_bytes, 0);
  if (outcome.state == PieceOutcome::State::kAgain) {
    (request.urgent ? urgent_ : later_).push_front(piece);
    return;
  }
  if (outcome.state == PieceOutcome::State::kFailed && !request.failure) request.failure = std::move(outcome.failure);
  end_piece(piece);
}

void ReadScheduler::end_piece(const ReadPiece& piece) {
  if (piece.bounce >= 0) free_bounce_.push_back(piece.bounce);
  const auto found = requests_.find(piece.request);
  Request& request = found->second;
  if (--request.pieces_left > 0) return;
  completions_.push_back({.tag = request.tag, .bytes_read = request.bytes_read, .failure = std::move(request.failure)});
  requests_.erase(found);
}

void ReadScheduler::take_completions(std::vector<ReadCompletion>& completions) {
  for (ReadCompletion& completion : completions_) completions.push_back(std::move(completion));
  completions_.clear();
}

}  // namespace moraine::offload
