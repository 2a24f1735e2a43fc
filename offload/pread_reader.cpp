#include "offload/pread_reader.h"

#include <unistd.h>

#include <cerrno>
#include <utility>

namespace moraine::offload {

PreadReader::PreadReader(std::span<const std::filesystem::path> files, const PreadLimits& limits,
                         PreadFunction pread_function)
    : files_(files),
      pread_(pread_function ? std::move(pread_function) : PreadFunction(::pread)),
      scheduler_(files_, limits.scheduler) {
  MORAINE_CHECK(limits.threads > 0);
  for (int i = 0; i < limits.threads; ++i) threads_.emplace_back([this] { read_pieces(); });
}

PreadReader::~PreadReader() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  has_work_.notify_all();
  threads_.clear();  // joins
}

void PreadReader::read_pieces() {
  std::unique_lock lock(mutex_);
  while (!stopping_) {
    std::optional<ReadPiece> piece = scheduler_.next();
    if (scheduler_.has_completions()) has_news_.notify_one();
    if (!piece) {
      has_work_.wait(lock);
      continue;
    }
    lock.unlock();
    const ssize_t result =
        pread_(files_.fd(piece->file, piece->direct), piece->buffer + piece->done_bytes,
               piece->length_bytes - piece->done_bytes, static_cast<off_t>(piece->offset + piece->done_bytes));
    PieceOutcome outcome = absorb_read(*piece, result >= 0 ? result : -errno, files_);
    lock.lock();
    scheduler_.settle(*piece, std::move(outcome));
    if (scheduler_.has_completions()) has_news_.notify_one();
    // The piece may have freed the bounce buffer that another thread went to sleep for.
    has_work_.notify_one();
  }
}

void PreadReader::submit(std::span<const ReadRequest> requests) {
  {
    const std::lock_guard lock(mutex_);
    for (const ReadRequest& request : requests) scheduler_.add(request);
  }
  has_work_.notify_all();
}

void PreadReader::wait(std::vector<ReadCompletion>& completions) {
  std::unique_lock lock(mutex_);
  has_news_.wait(lock, [this] { return woken_ || scheduler_.has_completions(); });
  woken_ = false;
  scheduler_.take_completions(completions);
}

void PreadReader::wake() {
  {
    const std::lock_guard lock(mutex_);
    woken_ = true;
  }
  has_news_.notify_one();
}

}  // namespace moraine::offload
