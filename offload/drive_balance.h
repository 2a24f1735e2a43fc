#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

namespace moraine::offload {

/// Says which of several drives is to read the next piece, by the speed at which each has read so far: bytes that
/// arrived per time in which it had something to do, the last few dozen pieces counting most. A piece goes where it
/// will be there first, so drives get bytes in proportion to their speeds. Not thread-safe; times come from the caller.
class DriveBalance {
 public:
  using Time = std::chrono::steady_clock::time_point;

  /// `pieces_in_flight`: most of one drive at a time.
  DriveBalance(int drives, int pieces_in_flight, Time now);

  /// The drive among `candidates` for a piece of `bytes`, or nothing: all are full, or waiting for a faster one is
  /// quicker. `queued_bytes`: what waits to be read in all, this piece included: while that keeps every drive busy, a
  /// slow one helps.
  std::optional<int> choose(std::span<const int> candidates, uint64_t bytes, uint64_t queued_bytes, Time now) const;
  /// A drive was given a piece.
  void begin(int drive, uint64_t bytes, Time now);
  /// It has read it. A piece that failed says nothing of the speed: `read` false.
  void end(int drive, uint64_t bytes, bool read, Time now);

  bool any_room() const;
  double bytes_per_s(int drive) const { return at(drive).bytes_per_s(); }

 private:
  struct Drive {
    uint64_t bytes_in_flight = 0;
    int pieces_in_flight = 0;
    // Sums that fade with every piece; the start values are a guess that the first pieces outweigh.
    double read_bytes = 1 << 20;
    double busy_s = 1e-3;
    Time last = {};  // end of the last piece, or begin of the first after a pause

    double bytes_per_s() const { return read_bytes / busy_s; }
    double finish_s(uint64_t bytes) const { return static_cast<double>(bytes_in_flight + bytes) / bytes_per_s(); }
  };
  const Drive& at(int drive) const { return drives_[static_cast<size_t>(drive)]; }
  bool is_forgotten(const Drive& drive, Time now) const;

  const int pieces_in_flight_;
  std::vector<Drive> drives_;
};

}  // namespace moraine::offload
