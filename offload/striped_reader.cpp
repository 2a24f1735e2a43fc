#include "offload/striped_reader.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <utility>

namespace moraine::offload {
namespace {

/// A drive that failed so many pieces is not asked any more.
constexpr int kMaxFailures = 8;
/// How far behind the first queued piece another one is looked for that a drive with room holds.
constexpr size_t kLookAhead = 64;

bool was_tried(uint32_t tried, int drive) {
  return (tried >> static_cast<unsigned>(drive) & 1u) != 0;
}

}  // namespace

StripedReader::StripedReader(std::unique_ptr<BlockReader> inner, MirroredFiles files, const StripeLimits& limits,
                             Inform inform, Clock clock)
    : files_(std::move(files)),
      limits_(limits),
      inform_(std::move(inform)),
      clock_(std::move(clock)),
      balance_(static_cast<int>(files_.drives.size()), limits.pieces_in_flight, clock_()),
      failures_(files_.drives.size()),
      inner_(std::move(inner)) {
  MORAINE_CHECK(limits.piece_bytes > 0 && limits.piece_bytes % inner_->alignment_bytes() == 0);
  MORAINE_CHECK(files_.drives.size() <= 1 + static_cast<size_t>(kMaxMirrors));
}

void StripedReader::submit(std::span<const ReadRequest> requests) {
  for (const ReadRequest& request : requests) cut(request);
  dispatch();
}

void StripedReader::wait(std::vector<ReadCompletion>& completions) {
  // A wake-up that inner_ used up together with completions must still end this wait: hence the flag of our own. The
  // exchange is the first thing asked, so that no wait leaves an answered wake-up to the next.
  while (!woken_.exchange(false) && completed_.empty()) {
    arrived_.clear();
    inner_->wait(arrived_);
    for (ReadCompletion& completion : arrived_) settle(completion);
    dispatch();
  }
  std::move(completed_.begin(), completed_.end(), std::back_inserter(completions));
  completed_.clear();
}

void StripedReader::wake() {
  woken_ = true;
  inner_->wake();
}

void StripedReader::cut(const ReadRequest& request) {
  MORAINE_CHECK(request.file >= 0 && static_cast<size_t>(request.file) < files_.copies.size());
  const uint64_t key = next_key_++;
  Request& entry = requests_[key];
  entry.tag = request.tag;
  uint64_t done_bytes = 0;
  do {
    const uint64_t offset = request.offset + done_bytes;
    // Cuts lie at aligned places of the file, so that no block is read twice.
    const uint64_t most_bytes = limits_.piece_bytes - offset % inner_->alignment_bytes();
    const uint64_t bytes = std::min<uint64_t>(request.destination.size() - done_bytes, most_bytes);
    (request.urgent ? urgent_ : later_)
        .push_back({.request = key,
                    .file = request.file,
                    .offset = offset,
                    .destination = request.destination.subspan(done_bytes, bytes),
                    .urgent = request.urgent,
                    .again = request.again});
    queued_bytes_ += bytes;
    done_bytes += bytes;
    ++entry.pieces_left;
  } while (done_bytes < request.destination.size());
}

void StripedReader::dispatch() {
  batch_.clear();
  for (std::deque<Piece>* queue : {&urgent_, &later_}) {
    while (dispatch_from(*queue)) {
    }
  }
  if (!batch_.empty()) inner_->submit(batch_);
}

bool StripedReader::dispatch_from(std::deque<Piece>& queue) {
  if (queue.empty() || !balance_.any_room()) return false;
  const DriveBalance::Time now = clock_();
  const size_t end = std::min(queue.size(), kLookAhead);
  for (size_t i = 0; i < end; ++i) {
    // One piece of its request failed everywhere: the rest would be read for nothing.
    const bool is_lost = requests_.at(queue[i].request).failure.has_value();
    const std::optional<FileCopy> copy = is_lost ? std::nullopt : choose(queue[i], now);
    if (!is_lost && !copy) continue;
    const Piece piece = queue[i];
    queue.erase(queue.begin() + static_cast<ptrdiff_t>(i));
    if (copy) hand_over(piece, *copy, now);
    queued_bytes_ -= piece.destination.size();
    if (is_lost) end_piece(piece);
    return true;
  }
  return false;
}

std::optional<FileCopy> StripedReader::choose(const Piece& piece, DriveBalance::Time now) const {
  const std::vector<FileCopy>& copies = files_.copies[static_cast<size_t>(piece.file)];
  std::array<int, 1 + kMaxMirrors> drives;
  size_t count = 0;
  // Drives that were given up come in only where no other is left.
  for (const bool given_up : {false, true}) {
    for (const FileCopy& copy : copies) {
      const bool is_given_up = failures_[static_cast<size_t>(copy.drive)] >= kMaxFailures;
      if (is_given_up == given_up && !was_tried(piece.tried, copy.drive)) drives[count++] = copy.drive;
    }
    if (count > 0) break;
  }
  // Bytes that came wrong once come from the model's own place, which is the first.
  if (piece.again) count = std::min<size_t>(count, 1);
  const std::optional<int> drive =
      balance_.choose(std::span(drives).first(count), piece.destination.size(), queued_bytes_, now);
  if (!drive) return std::nullopt;
  return *std::find_if(copies.begin(), copies.end(), [&](const FileCopy& copy) { return copy.drive == *drive; });
}

void StripedReader::hand_over(Piece piece, const FileCopy& copy, DriveBalance::Time now) {
  piece.drive = copy.drive;
  balance_.begin(copy.drive, piece.destination.size(), now);
  const uint64_t tag = next_key_++;
  batch_.push_back({.tag = tag,
                    .file = copy.file,
                    .offset = piece.offset,
                    .destination = piece.destination,
                    .urgent = piece.urgent});
  under_way_[tag] = piece;
}

void StripedReader::settle(ReadCompletion& completion) {
  const auto found = under_way_.find(completion.tag);
  MORAINE_CHECK(found != under_way_.end());
  Piece piece = found->second;
  under_way_.erase(found);
  balance_.end(piece.drive, piece.destination.size(), !completion.failure, clock_());
  Request& request = requests_.at(piece.request);
  request.bytes_read += completion.bytes_read;
  if (!completion.failure) return end_piece(piece);

  piece.tried |= 1u << static_cast<unsigned>(piece.drive);
  const std::vector<FileCopy>& copies = files_.copies[static_cast<size_t>(piece.file)];
  const bool is_elsewhere =
      std::any_of(copies.begin(), copies.end(), [&](const auto& copy) { return !was_tried(piece.tried, copy.drive); });
  if (is_elsewhere) {
    note_failure(piece.drive, *completion.failure);
    queued_bytes_ += piece.destination.size();
    (piece.urgent ? urgent_ : later_).push_front(piece);
    return;
  }
  if (!request.failure) request.failure = std::move(completion.failure);
  end_piece(piece);
}

void StripedReader::note_failure(int drive, const ReadFailure& failure) {
  const int failures = ++failures_[static_cast<size_t>(drive)];
  if (!inform_) return;
  const std::string directory = files_.drives[static_cast<size_t>(drive)].string();
  if (failures == 1) {
    inform_(fmt::format("warning: {}; what {} can't give is read from the other copies",
                        quant::Error(failure.kind, failure.detail).what(), directory));
  } else if (failures == kMaxFailures) {
    inform_(fmt::format("warning: {} failed {} reads and is left alone from now on", directory, failures));
  }
}

void StripedReader::end_piece(const Piece& piece) {
  const auto found = requests_.find(piece.request);
  Request& request = found->second;
  if (--request.pieces_left > 0) return;
  completed_.push_back({.tag = request.tag, .bytes_read = request.bytes_read, .failure = std::move(request.failure)});
  requests_.erase(found);
}

}  // namespace moraine::offload
