#include "offload/uring_reader.h"

#include <fmt/format.h>
#include <liburing.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>
#include <vector>

namespace moraine::offload {
namespace {

constexpr uint64_t kWakeKey = ~uint64_t{0};

/// A ring, or the errno that refused it.
class RingHandle {
 public:
  explicit RingHandle(int queue_depth)
      : refusal_(-io_uring_queue_init(static_cast<unsigned>(queue_depth), &ring_, IORING_SETUP_CLAMP)) {
    // Kernels before 5.6 have rings that can't read; to us they have none.
    if (refusal_ == 0 && !can_read()) {
      io_uring_queue_exit(&ring_);
      refusal_ = ENOSYS;
    }
  }
  ~RingHandle() {
    if (refusal_ == 0) io_uring_queue_exit(&ring_);
  }
  RingHandle(const RingHandle&) = delete;
  RingHandle& operator=(const RingHandle&) = delete;

  int refusal() const { return refusal_; }
  io_uring* get() { return &ring_; }

 private:
  bool can_read() {
    io_uring_probe* probe = io_uring_get_probe_ring(&ring_);
    const bool can = probe != nullptr && io_uring_opcode_supported(probe, IORING_OP_READ) != 0;
    io_uring_free_probe(probe);
    return can;
  }

  io_uring ring_ = {};
  int refusal_;
};

}  // namespace

quant::Error uring_refused_error(int errno_value) {
  return quant::Error(
      quant::ErrorKind::kIo,
      {.what = fmt::format("io_uring is refused by this system: {}", std::strerror(errno_value)),
       .action = "read with pread instead, or allow io_uring: sysctl kernel.io_uring_disabled=0, a container seccomp "
                 "profile with io_uring, a higher ulimit -l"});
}

/// Everything behind the port. Slot i of `in_flight` is the piece whose completion carries user data i.
struct UringReader::Ring {
  Ring(std::span<const std::filesystem::path> files, const UringLimits& limits)
      : file_set(files),
        scheduler(file_set, limits.scheduler),
        handle(limits.queue_depth + 1),
        wake_fd(::eventfd(0, EFD_CLOEXEC)),
        in_flight(static_cast<size_t>(limits.queue_depth)) {
    if (handle.refusal() != 0) throw uring_refused_error(handle.refusal());
    if (!wake_fd) throw quant::system_error(errno, "could not make an eventfd", {});
    register_files();
    for (int slot = limits.queue_depth - 1; slot >= 0; --slot) free_slots.push_back(static_cast<size_t>(slot));
  }

  /// Spares the system a look-up per read. Refused (by RLIMIT_NOFILE, on old kernels), reads name descriptors.
  void register_files() {
    std::vector<int> descriptors;  // [2 × files]
    for (int file = 0; file < file_set.count(); ++file) {
      for (const bool direct : {false, true}) descriptors.push_back(file_set.fd(file, direct));
    }
    files_are_registered =
        !descriptors.empty() &&
        io_uring_register_files(handle.get(), descriptors.data(), static_cast<unsigned>(descriptors.size())) == 0;
  }

  /// The wake-up is a read of the eventfd inside the ring, so that one wait sees both.
  void arm_wake() {
    if (wake_armed || draining) return;
    io_uring_sqe* sqe = io_uring_get_sqe(handle.get());
    MORAINE_CHECK(sqe != nullptr);
    io_uring_prep_read(sqe, wake_fd.get(), &wake_count, sizeof wake_count, 0);
    io_uring_sqe_set_data64(sqe, kWakeKey);
    wake_armed = true;
  }

  void issue() {
    while (!free_slots.empty()) {
      std::optional<ReadPiece> piece = scheduler.next();
      if (!piece) return;
      io_uring_sqe* sqe = io_uring_get_sqe(handle.get());
      MORAINE_CHECK(sqe != nullptr);  // the ring is deeper than free_slots
      const size_t slot = free_slots.back();
      free_slots.pop_back();
      in_flight[slot] = *piece;
      const int file =
          files_are_registered ? 2 * piece->file + (piece->direct ? 1 : 0) : file_set.fd(piece->file, piece->direct);
      io_uring_prep_read(sqe, file, piece->buffer + piece->done_bytes,
                         static_cast<unsigned>(piece->length_bytes - piece->done_bytes),
                         piece->offset + piece->done_bytes);
      if (files_are_registered) io_uring_sqe_set_flags(sqe, IOSQE_FIXED_FILE);
      io_uring_sqe_set_data64(sqe, slot);
    }
  }

  /// Hands everything prepared to the system; waits for `wait_for` (0 or 1) completions.
  void enter(unsigned wait_for) {
    // A system that lacks room for so long (5 s) will not find any.
    constexpr int kMostRefusals = 5000;
    int refusals = 0;
    while (true) {
      const int result = io_uring_submit_and_wait(handle.get(), wait_for);
      if (result >= 0) return;
      if (result == -EINTR) continue;
      // The system lacks room for more at the moment: completions make room.
      if ((result == -EAGAIN || result == -EBUSY) && reads_in_flight() > 0 && io_uring_cq_ready(handle.get()) > 0)
        return;
      if ((result == -EAGAIN || result == -EBUSY) && !broken && ++refusals < kMostRefusals) {
        ::usleep(1000);
        continue;
      }
      broken = true;
      throw quant::system_error(-result, "io_uring stopped working", {}, "read with pread instead");
    }
  }

  void reap() {
    io_uring_cqe* cqe = nullptr;
    while (io_uring_peek_cqe(handle.get(), &cqe) == 0 && cqe != nullptr) {
      const uint64_t key = io_uring_cqe_get_data64(cqe);
      const int result = cqe->res;
      io_uring_cqe_seen(handle.get(), cqe);
      if (key == kWakeKey) {
        wake_armed = false;
        woken = true;
        continue;
      }
      ReadPiece piece = in_flight[key];
      free_slots.push_back(key);
      PieceOutcome outcome = absorb_read(piece, result, file_set);
      scheduler.settle(piece, std::move(outcome));
    }
  }

  size_t reads_in_flight() const { return in_flight.size() - free_slots.size(); }

  FileSet file_set;
  ReadScheduler scheduler;
  RingHandle handle;
  quant::UniqueFd wake_fd;
  uint64_t wake_count = 0;  // the eventfd read's destination
  bool files_are_registered = false;
  bool wake_armed = false;
  bool woken = false;
  bool draining = false;
  bool broken = false;
  std::vector<ReadPiece> in_flight;  // [queue_depth]
  std::vector<size_t> free_slots;
};

int UringReader::refusal() {
  return RingHandle(UringLimits{}.queue_depth + 1).refusal();
}

UringReader::UringReader(std::span<const std::filesystem::path> files, const UringLimits& limits)
    : ring_(std::make_unique<Ring>(files, limits)) {}

UringReader::~UringReader() {
  // The system writes into destinations until its reads have ended, ring or no ring.
  ring_->draining = true;
  try {
    if (ring_->wake_armed) wake();
    while (ring_->reads_in_flight() > 0 || ring_->wake_armed) {
      ring_->enter(1);
      ring_->reap();
    }
  } catch (const quant::Error&) {
    // A ring that is broken can't be waited for; closing it below cancels what it holds.
  }
}

void UringReader::submit(std::span<const ReadRequest> requests) {
  for (const ReadRequest& request : requests) ring_->scheduler.add(request);
  ring_->issue();
  ring_->enter(0);
}

void UringReader::wait(std::vector<ReadCompletion>& completions) {
  while (true) {
    ring_->arm_wake();
    ring_->issue();
    const bool done = ring_->scheduler.has_completions() || ring_->woken;
    ring_->enter(done ? 0 : 1);
    ring_->reap();
    if (ring_->scheduler.has_completions() || std::exchange(ring_->woken, false)) break;
  }
  ring_->woken = false;
  ring_->issue();
  ring_->enter(0);
  ring_->scheduler.take_completions(completions);
}

void UringReader::wake() {
  const uint64_t one = 1;
  // Only a full counter can make this fail, and then the reader is woken anyway.
  [[maybe_unused]] const ssize_t written = ::write(ring_->wake_fd.get(), &one, sizeof one);
}

}  // namespace moraine::offload
