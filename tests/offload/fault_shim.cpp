// A bad drive below the whole program: loaded into it with LD_PRELOAD, this spoils the reads of chosen files, whether
// they go through pread or through a real io_uring, or what is done to write them. What it is to do stands in the
// environment of that process:
//   FAULT_FILE   part of the path of the files it is about
//   FAULT_KIND   of reads: short (half of what was asked for), slow (FAULT_MS later), or the name of an error (EIO, …)
//                of writes: ENOSPC, or kill: SIGKILL in the middle of a pwrite, before an fsync, ftruncate or rename
//                of the ring: enter (the system takes no calls: EINTR, EAGAIN and EBUSY in turn)
//   FAULT_SKIP   so many reads (writes, calls) are left alone first
//   FAULT_TIMES  so many are spoilt, then no more
//   FAULT_PASS   of those that begin at one place of one file, every so many-th passes all the same
#include <dlfcn.h>
#include <liburing.h>
#include <signal.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <chrono>
#include <climits>
#include <cstdint>
#include <cstdlib>
#include <map>
#include <mutex>
#include <string>
#include <thread>
#include <unordered_map>
#include <utility>
#include <vector>

namespace {

constexpr unsigned kSectorBytes = 512;

enum class What { kReads, kWrites, kRing };

struct Plan {
  std::string file, kind;
  What what = What::kReads;
  long skip = 0, times = LONG_MAX, pass = LONG_MAX, ms = 0;
  int error = 0;  // for kind: errno
};

long number(const char* name, long otherwise) {
  const char* text = std::getenv(name);
  return text != nullptr ? std::atol(text) : otherwise;
}

Plan read_plan() {
  const std::map<std::string, int> errors = {
      {"EIO", EIO}, {"EINTR", EINTR}, {"EAGAIN", EAGAIN}, {"ENODEV", ENODEV}, {"ENOMEM", ENOMEM}};
  Plan plan;
  if (const char* file = std::getenv("FAULT_FILE")) plan.file = file;
  if (const char* kind = std::getenv("FAULT_KIND")) plan.kind = kind;
  plan.skip = number("FAULT_SKIP", 0);
  plan.times = number("FAULT_TIMES", LONG_MAX);
  plan.pass = number("FAULT_PASS", LONG_MAX);
  plan.ms = number("FAULT_MS", 0);
  const auto found = errors.find(plan.kind);
  if (found != errors.end()) plan.error = found->second;
  if (plan.kind == "ENOSPC" || plan.kind == "kill") plan.what = What::kWrites;
  if (plan.kind == "enter") plan.what = What::kRing;
  const bool is_known = plan.error != 0 || plan.what != What::kReads || plan.kind == "short" || plan.kind == "slow";
  if (plan.file.empty() || !is_known) std::abort();
  return plan;
}

const Plan& plan() {
  static const Plan read = read_plan();
  return read;
}

bool is_meant(int fd) {
  char path[PATH_MAX];
  const std::string link = "/proc/self/fd/" + std::to_string(fd);
  const ssize_t length = ::readlink(link.c_str(), path, sizeof path);
  return length > 0 && std::string(path, static_cast<size_t>(length)).find(plan().file) != std::string::npos;
}

/// Whether the next of what this is about is to be spoilt.
bool is_next_spoilt() {
  static std::atomic<long> count = 0;
  const long index = count++ - plan().skip;
  return index >= 0 && index < plan().times;
}

/// Whether this read is the one that passes. Counted for each place: over all reads, chance could hit one place alone.
bool passes(int fd, uint64_t offset) {
  static std::mutex mutex;
  static std::map<std::pair<int, uint64_t>, long> spoilt;  // (descriptor, offset) → since one passed
  const std::lock_guard lock(mutex);
  long& count = spoilt[{fd, offset}];
  if (++count < plan().pass) return false;
  count = 0;
  return true;
}

/// Whether the read of `fd` that is about to begin at `offset` is to be spoilt.
bool spoil(int fd, uint64_t offset) {
  return plan().what == What::kReads && is_meant(fd) && is_next_spoilt() && !passes(fd, offset);
}

bool spoil_write(bool is_meant_file) {
  return plan().what == What::kWrites && is_meant_file && is_next_spoilt();
}

/// A call that makes a change to a file: what becomes of it before it is done.
void die_if_so_planned(bool is_meant_file) {
  if (plan().kind == "kill" && spoil_write(is_meant_file)) ::kill(::getpid(), SIGKILL);
}

template <typename Length>
Length half(Length bytes) {
  const Length some = bytes / 2 / kSectorBytes * kSectorBytes;
  return some > 0 ? some : bytes;
}

void be_slow() {
  std::this_thread::sleep_for(std::chrono::milliseconds(plan().ms));
}

/// What is known of a ring. The program sees completions only when they have been looked at here: it follows a tail of
/// ours instead of the kernel's.
struct Ring {
  unsigned* kernel_tail = nullptr;
  unsigned shown_tail = 0;
  std::vector<int> files;                       // registered
  std::unordered_map<uint64_t, int> to_become;  // user data of reads under way → their result
};

std::mutex rings_mutex;
std::unordered_map<io_uring*, Ring> rings;

template <typename Function>
Function real(const char* name) {
  return reinterpret_cast<Function>(dlsym(RTLD_NEXT, name));
}

void spoil_submissions(io_uring* handle, Ring& ring) {
  for (unsigned i = handle->sq.sqe_head; i != handle->sq.sqe_tail; ++i) {
    io_uring_sqe& sqe = handle->sq.sqes[i & *handle->sq.kring_mask];
    const bool is_registered = (sqe.flags & IOSQE_FIXED_FILE) != 0;
    const int fd = is_registered ? ring.files.at(static_cast<size_t>(sqe.fd)) : sqe.fd;
    if (sqe.opcode != IORING_OP_READ || !spoil(fd, sqe.off)) continue;
    if (plan().kind == "short") sqe.len = half(sqe.len);
    if (plan().kind == "slow") be_slow();
    if (plan().error != 0) ring.to_become[sqe.user_data] = -plan().error;
  }
}

void show_completions(io_uring* handle, Ring& ring) {
  const unsigned tail = io_uring_smp_load_acquire(ring.kernel_tail);
  for (unsigned i = ring.shown_tail; i != tail; ++i) {
    io_uring_cqe& cqe = handle->cq.cqes[i & *handle->cq.kring_mask];
    const auto found = ring.to_become.find(cqe.user_data);
    if (found == ring.to_become.end()) continue;
    cqe.res = found->second;
    ring.to_become.erase(found);
  }
  ring.shown_tail = tail;
}

}  // namespace

extern "C" {

ssize_t pread(int fd, void* target, size_t bytes, off_t offset) {
  static const auto real_pread = real<ssize_t (*)(int, void*, size_t, off_t)>("pread");
  if (!spoil(fd, static_cast<uint64_t>(offset))) return real_pread(fd, target, bytes, offset);
  if (plan().error != 0) {
    errno = plan().error;
    return -1;
  }
  if (plan().kind == "slow") be_slow();
  return real_pread(fd, target, plan().kind == "short" ? half(bytes) : bytes, offset);
}

ssize_t pwrite(int fd, const void* bytes, size_t count, off_t offset) {
  static const auto real_pwrite = real<ssize_t (*)(int, const void*, size_t, off_t)>("pwrite");
  if (!spoil_write(is_meant(fd))) return real_pwrite(fd, bytes, count, offset);
  if (plan().kind == "kill") {
    (void)real_pwrite(fd, bytes, count / 2, offset);
    ::kill(::getpid(), SIGKILL);
  }
  errno = ENOSPC;
  return -1;
}

int fsync(int fd) {
  die_if_so_planned(is_meant(fd));
  return real<int (*)(int)>("fsync")(fd);
}

int ftruncate(int fd, off_t bytes) noexcept {
  die_if_so_planned(is_meant(fd));
  return real<int (*)(int, off_t)>("ftruncate")(fd, bytes);
}

int rename(const char* from, const char* to) noexcept {
  die_if_so_planned(std::string(to).find(plan().file) != std::string::npos);
  return real<int (*)(const char*, const char*)>("rename")(from, to);
}

int io_uring_queue_init(unsigned entries, io_uring* handle, unsigned flags) {
  const int result = real<int (*)(unsigned, io_uring*, unsigned)>("io_uring_queue_init")(entries, handle, flags);
  if (result < 0) return result;
  const std::lock_guard lock(rings_mutex);
  Ring& ring = rings[handle];
  ring = {};
  ring.kernel_tail = handle->cq.ktail;
  ring.shown_tail = *ring.kernel_tail;
  handle->cq.ktail = &ring.shown_tail;
  return result;
}

int io_uring_register_files(io_uring* handle, const int* files, unsigned count) {
  {
    const std::lock_guard lock(rings_mutex);
    rings.at(handle).files.assign(files, files + count);
  }
  return real<int (*)(io_uring*, const int*, unsigned)>("io_uring_register_files")(handle, files, count);
}

int io_uring_submit_and_wait(io_uring* handle, unsigned wait_for) {
  static const auto real_wait = real<int (*)(io_uring*, unsigned)>("io_uring_submit_and_wait");
  Ring* ring = nullptr;
  {
    const std::lock_guard lock(rings_mutex);
    ring = &rings.at(handle);
  }
  if (plan().what == What::kRing && is_next_spoilt()) {
    constexpr int kRefusals[] = {EINTR, EAGAIN, EBUSY};
    static std::atomic<size_t> refused = 0;
    return -kRefusals[refused++ % 3];
  }
  spoil_submissions(handle, *ring);
  const int result = real_wait(handle, wait_for);
  show_completions(handle, *ring);
  return result;
}

}  // extern "C"
