#include "offload/drive_balance.h"

#include <algorithm>
#include <limits>

#include "quant/error.h"

namespace moraine::offload {
namespace {

/// What of a drive's measured past stays with each new piece.
constexpr double kFade = 31.0 / 32.0;
/// A drive without work for so long may be another by now: it is tried again, and its past weighs no more than a piece.
constexpr std::chrono::seconds kForgetAfter{1};
/// Completions come in bunches, the later ones with no time between: a drive is never taken for infinitely fast.
constexpr double kLeastBusyS = 1e-6;

}  // namespace

DriveBalance::DriveBalance(int drives, int pieces_in_flight, Time now)
    : pieces_in_flight_(pieces_in_flight), drives_(static_cast<size_t>(drives)) {
  MORAINE_CHECK(drives > 0 && pieces_in_flight > 0);
  for (Drive& drive : drives_) drive.last = now;
}

bool DriveBalance::is_forgotten(const Drive& drive, Time now) const {
  return drive.pieces_in_flight == 0 && now - drive.last >= kForgetAfter;
}

std::optional<int> DriveBalance::choose(std::span<const int> candidates, uint64_t bytes, uint64_t queued_bytes,
                                        Time now) const {
  constexpr double kNever = std::numeric_limits<double>::infinity();
  double soonest_s = kNever;            // over all candidates, full ones too
  double soonest_with_room_s = kNever;  // over those that could begin at once
  std::optional<int> chosen;
  for (const int candidate : candidates) {
    const Drive& drive = at(candidate);
    if (is_forgotten(drive, now)) return candidate;
    const double finish_s = drive.finish_s(bytes);
    soonest_s = std::min(soonest_s, finish_s);
    if (drive.pieces_in_flight >= pieces_in_flight_ || finish_s >= soonest_with_room_s) continue;
    soonest_with_room_s = finish_s;
    chosen = candidate;
  }
  double all_bytes = static_cast<double>(queued_bytes), all_bytes_per_s = 0.0;
  for (const Drive& drive : drives_) {
    all_bytes += static_cast<double>(drive.bytes_in_flight);
    all_bytes_per_s += drive.bytes_per_s();
  }
  if (soonest_with_room_s > std::max(soonest_s, all_bytes / all_bytes_per_s)) return std::nullopt;
  return chosen;
}

void DriveBalance::begin(int drive, uint64_t bytes, Time now) {
  Drive& begun = drives_[static_cast<size_t>(drive)];
  if (is_forgotten(begun, now)) {
    const double keep = std::min(1.0, static_cast<double>(std::max<uint64_t>(bytes, 1)) / begun.read_bytes);
    begun.read_bytes *= keep;
    begun.busy_s *= keep;
  }
  if (begun.pieces_in_flight == 0) begun.last = now;
  begun.bytes_in_flight += bytes;
  ++begun.pieces_in_flight;
}

void DriveBalance::end(int drive, uint64_t bytes, bool read, Time now) {
  Drive& ended = drives_[static_cast<size_t>(drive)];
  MORAINE_CHECK(ended.pieces_in_flight > 0 && ended.bytes_in_flight >= bytes);
  ended.bytes_in_flight -= bytes;
  --ended.pieces_in_flight;
  const double busy_s = std::chrono::duration<double>(now - ended.last).count();
  ended.last = now;
  if (!read) return;
  ended.read_bytes = ended.read_bytes * kFade + static_cast<double>(bytes);
  ended.busy_s = std::max(ended.busy_s * kFade + busy_s, kLeastBusyS);
}

bool DriveBalance::any_room() const {
  return std::any_of(drives_.begin(), drives_.end(),
                     [this](const Drive& drive) { return drive.pieces_in_flight < pieces_in_flight_; });
}

}  // namespace moraine::offload
