#pragma once

#include <functional>

namespace moraine::tools {

/// From now on Ctrl-C ends the program with 130 and a termination request with 143, at once, unless a SignalWatch
/// lives. Nothing is lost: whatever is written to disk is either whole or can be resumed. Call once, from main.
void install_signal_handlers();

/// While it lives, SIGINT and SIGTERM only leave a note, and poll() returns with EINTR. One at a time.
class SignalWatch {
 public:
  SignalWatch();
  ~SignalWatch();
  SignalWatch(const SignalWatch&) = delete;
  SignalWatch& operator=(const SignalWatch&) = delete;

  /// Ctrl-C was pressed since the start or the last forget_interrupt().
  bool interrupted() const;
  void forget_interrupt();
  /// The program was asked to end.
  bool terminated() const;
  bool any() const { return interrupted() || terminated(); }
};

}  // namespace moraine::tools
