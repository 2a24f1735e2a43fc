#include "tools/signals.h"

#include <signal.h>
#include <unistd.h>

#include <atomic>

#include "quant/error.h"
#include "tools/exit_codes.h"

namespace moraine::tools {
namespace {

// A signal handler reaches nothing but static storage; this is the program's only such state.
std::atomic<bool> watched{false};
std::atomic<bool> interrupt_noted{false};
std::atomic<int> termination_noted{0};  // the signal
static_assert(std::atomic<bool>::is_always_lock_free && std::atomic<int>::is_always_lock_free,
              "used in a signal handler");

extern "C" void on_signal(int signal_number) {
  if (signal_number == SIGINT) {
    interrupt_noted.store(true);
  } else {
    termination_noted.store(signal_number);
  }
  if (watched.load()) return;
  // An unfinished progress line stays; the shell's prompt begins below it.
  if (isatty(STDERR_FILENO) == 1) [[maybe_unused]]
    const ssize_t ignored = write(STDERR_FILENO, "\n", 1);
  _exit(128 + signal_number);
}

}  // namespace

void install_signal_handlers() {
  struct sigaction action {};
  action.sa_handler = on_signal;
  action.sa_flags = SA_RESTART;  // who wants to notice while waiting uses poll(), which is never restarted
  sigemptyset(&action.sa_mask);
  for (const int signal_number : {SIGINT, SIGTERM, SIGHUP}) {
    struct sigaction before {};
    sigaction(signal_number, nullptr, &before);
    // A parent that chose to ignore it (nohup, background jobs of a script) keeps its choice.
    if (before.sa_handler != SIG_IGN) sigaction(signal_number, &action, nullptr);
  }
}

SignalWatch::SignalWatch() {
  MORAINE_CHECK(!watched.load());
  interrupt_noted.store(false);
  watched.store(true);
}

SignalWatch::~SignalWatch() {
  watched.store(false);
}

bool SignalWatch::interrupted() const {
  return interrupt_noted.load();
}

void SignalWatch::forget_interrupt() {
  interrupt_noted.store(false);
}

bool SignalWatch::terminated() const {
  return termination_noted.load() != 0;
}

int SignalWatch::exit_code() const {
  return 128 + (terminated() ? termination_noted.load() : SIGINT);
}

}  // namespace moraine::tools
