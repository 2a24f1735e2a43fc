#pragma once

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <functional>
#include <span>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "offload/block_reader.h"

namespace moraine::testing {

/// Drives in a time of their own: each reads its requests one after the other at its speed, whatever the others do, and
/// wait() moves the time to the next completion. The same every time, on any machine.
class SimulatedDrives : public offload::BlockReader {
 public:
  using Time = std::chrono::steady_clock::time_point;
  struct Drive {
    double bytes_per_s = 1e9;
    int failures = 0;    ///< so many requests fail with kIo; −1: all
    bool lies = false;   ///< the first byte of each request comes wrong
    uint64_t bytes = 0;  ///< given to it so far
    uint64_t most_in_flight = 0;
    std::chrono::duration<double> free_at{0};
  };

  /// `files`: the content of each file; `drive_of`: where it lies.
  SimulatedDrives(std::vector<std::string> files, std::vector<int> drive_of, std::vector<Drive> given)
      : drives(std::move(given)), files_(std::move(files)), drive_of_(std::move(drive_of)) {}

  void submit(std::span<const offload::ReadRequest> requests) override {
    for (const offload::ReadRequest& request : requests) {
      const int index = drive_of_.at(static_cast<size_t>(request.file));
      Drive& drive = drives.at(static_cast<size_t>(index));
      const auto size = static_cast<double>(request.destination.size());
      drive.free_at = std::max(drive.free_at, now_) + std::chrono::duration<double>(size / drive.bytes_per_s);
      drive.bytes += request.destination.size();
      in_flight_.push_back({drive.free_at, index, request});
      const auto of_drive = [&](const Read& read) { return read.drive == index; };
      drive.most_in_flight = std::max<uint64_t>(
          drive.most_in_flight, static_cast<uint64_t>(std::count_if(in_flight_.begin(), in_flight_.end(), of_drive)));
    }
  }

  void wait(std::vector<offload::ReadCompletion>& completions) override {
    if (std::exchange(woken_, false)) return;
    if (in_flight_.empty()) throw std::logic_error("waits for nothing");
    const auto first = std::min_element(in_flight_.begin(), in_flight_.end(),
                                        [](const Read& a, const Read& b) { return a.finish < b.finish; });
    const Read read = *first;
    in_flight_.erase(first);
    now_ = std::max(now_, read.finish);
    completions.push_back(complete(read));
    if (on_completion) on_completion();
  }

  void wake() override { woken_ = true; }
  uint64_t alignment_bytes() const override { return 4096; }
  const char* name() const override { return "simulated"; }

  Time now() const { return Time() + std::chrono::duration_cast<Time::duration>(now_); }
  double now_s() const { return now_.count(); }
  void pause(double s) { now_ += std::chrono::duration<double>(s); }

  std::vector<Drive> drives;
  std::function<void()> on_completion;  ///< called by wait() before it returns with one; may be empty

 private:
  struct Read {
    std::chrono::duration<double> finish{0};
    int drive = 0;
    offload::ReadRequest request;
  };

  offload::ReadCompletion complete(const Read& read) {
    Drive& drive = drives[static_cast<size_t>(read.drive)];
    const std::string& file = files_[static_cast<size_t>(read.request.file)];
    if (drive.failures != 0) {
      if (drive.failures > 0) --drive.failures;
      return {.tag = read.request.tag,
              .failure = offload::ReadFailure{
                  .kind = quant::ErrorKind::kIo,
                  .detail = {.what = "drive " + std::to_string(read.drive) + " fails", .offset = read.request.offset}}};
    }
    const std::span<const std::byte> bytes =
        std::as_bytes(std::span(file)).subspan(read.request.offset, read.request.destination.size());
    std::copy(bytes.begin(), bytes.end(), read.request.destination.begin());
    if (drive.lies) read.request.destination[0] = ~bytes[0];
    return {.tag = read.request.tag, .bytes_read = read.request.destination.size()};
  }

  const std::vector<std::string> files_;
  const std::vector<int> drive_of_;
  std::vector<Read> in_flight_;
  std::chrono::duration<double> now_{0};
  bool woken_ = false;
};

}  // namespace moraine::testing
